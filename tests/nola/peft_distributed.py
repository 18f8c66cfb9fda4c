"""Two processes train NOLA through peft, each on half of a batch, and compare with one that has it all.

Run by `test_peft_distributed.py` as `python peft_distributed.py FOLDER`: the processes meet in the folder. Only the
interpreter that forks has imported anything, so that two processes cost little more than one.
"""

import copy
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.other import fsdp_auto_wrap_policy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from effbook.nola.peft import NOLAConfig

X = torch.linspace(-1, 1, 4 * 12).sin().reshape(4, 12)
CPU = torch.device("cpu")
KEPT = {"own": {}, "shared": {"shared_basis": True}, "anew": {"regenerate": True}}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


def fresh(**fields):
    torch.manual_seed(0)
    base = nn.Sequential(Block(), Block())
    given = {"r": 3, "k": 10, "l": 9, "target_modules": ["up", "down"], "init_weights": False}
    return get_peft_model(base, NOLAConfig(**(given | fields)))


def step(model, x):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
    model(x).square().mean().backward()
    optimizer.step()


def ddp(model):
    return DistributedDataParallel(model)


def fsdp_blocks(model):
    policy = ModuleWrapPolicy({Block})
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=True, device_id=CPU)


def fsdp_whole(model):
    return FullyShardedDataParallel(model, use_orig_params=True, device_id=CPU)


def fsdp_as_peft_wraps(model):
    """peft's own policy, which a Trainer takes: what trains is a unit of its own, so that units needn't mix."""
    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "Block"
    policy = fsdp_auto_wrap_policy(model)
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=False, device_id=CPU)


def fsdp_2(model):
    mesh = init_device_mesh("cpu", (2,))
    for block in model.get_base_model():
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def trained(wrapped):
    """What is saved of the adapter: whole tensors, on every process."""
    if isinstance(wrapped, FullyShardedDataParallel):
        with FullyShardedDataParallel.state_dict_type(wrapped, StateDictType.FULL_STATE_DICT, FullStateDictConfig()):
            whole = wrapped.state_dict()
    else:
        whole = (wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped).state_dict()
    whole = {key: v.full_tensor() if isinstance(v, DTensor) else v for key, v in whole.items()}
    return get_peft_model_state_dict(fresh(), state_dict=whole)


def check(name, wrap, fields):
    alone = fresh(**fields)
    wrapped = wrap(copy.deepcopy(alone))
    for _ in range(2):
        step(alone, X)
        step(wrapped, X.chunk(2)[dist.get_rank()])
    state, wanted = trained(wrapped), get_peft_model_state_dict(alone)
    assert state.keys() == wanted.keys(), f"{name}: {sorted(state.keys() ^ wanted.keys())}"
    start = get_peft_model_state_dict(fresh(**fields))
    for key, value in state.items():
        torch.testing.assert_close(value, wanted[key], msg=lambda told, key=key: f"{name}, {key}: {told}")
        assert not torch.equal(value, start[key]), f"{name}: {key} didn't train"
    again = fresh(**fields)
    set_peft_model_state_dict(again, state)
    torch.testing.assert_close(again(X), alone(X))


def process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        for wrap in (ddp, fsdp_whole, fsdp_blocks, fsdp_as_peft_wraps, fsdp_2):
            for kept, fields in KEPT.items():
                check(f"{wrap.__name__}, {kept}", wrap, fields)
                if rank == 0:
                    print(f"{wrap.__name__}, {kept}: alike", flush=True)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.start_processes(process, (Path(sys.argv[1]).resolve(),), nprocs=2, start_method="fork")
