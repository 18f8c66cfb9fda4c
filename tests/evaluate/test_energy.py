import sys
import types

import pytest
import torch

from effbook.errors import EffbookError
from effbook.evaluate import energy
from effbook.evaluate.energy import Counter, EnergyMeter, cpu_counter, gpu_counter


class World:
    """A machine whose clock and joules move as told, and whose counter shows the joules every 100 ms."""

    def __init__(self, idle_watts=10.0):
        self.idle_watts, self.ms, self.joules, self.shown = idle_watts, 0, 0.0, 0.0

    def pass_time(self, ms, watts):
        for _ in range(ms):
            self.ms += 1
            self.joules += watts / 1e3
            if self.ms % 100 == 0:
                self.shown = self.joules

    def sleep(self, seconds):
        self.pass_time(max(1, round(1e3 * seconds)), self.idle_watts)

    def busy(self, ms, watts):
        return lambda: self.pass_time(ms, watts)


@pytest.fixture
def world(monkeypatch):
    made = World()
    monkeypatch.setattr(energy, "perf_counter", lambda: made.ms / 1e3)
    monkeypatch.setattr(energy, "sleep", made.sleep)
    return made


def test_joules_are_those_above_idle_and_the_counters_steps_lose_nothing(world):
    meter = EnergyMeter(Counter("nvml", lambda: world.shown))
    found = meter.measure({"light": world.busy(37, 30.0), "heavy": world.busy(37, 60.0)})
    assert found["light"].joules == pytest.approx(0.037 * (30 - 10))
    assert found["heavy"].joules == pytest.approx(0.037 * (60 - 10))
    assert found["heavy"].idle_watts == pytest.approx(10.0)
    assert found["heavy"].range_joules == pytest.approx((0.037 * 50, 0.037 * 50))
    assert found["heavy"].calls == 3 * 55  # 2 s hold 54.05 calls
    assert found["heavy"].source == "nvml"


def test_each_round_takes_its_own_idle_power_off_and_none_always_comes_first(world):
    called = []

    def one(name):
        called.append(name)
        world.pass_time(5000, 50.0)
        if len(called) == 4:  # after the first round the machine idles at more
            world.idle_watts = 30.0

    meter = EnergyMeter(Counter("nvml", lambda: world.shown), rounds=2)
    found = meter.measure({name: lambda name=name: one(name) for name in "ab"})
    assert "".join(called) == "ab" + "ab" + "ba"  # the warm-up, then two rounds
    assert found["a"].range_joules == pytest.approx((5 * 20, 5 * 40))
    assert found["a"].joules == pytest.approx(5 * 30)
    assert found["a"].idle_watts == pytest.approx(20.0)


def test_a_counter_that_stands_still_is_told(world):
    with pytest.raises(EffbookError, match='nvml stands still; report the joules as "not measured"'):
        EnergyMeter(Counter("nvml", lambda: 1.0)).measure({"a": world.busy(1, 1.0)})


@pytest.mark.parametrize(("seconds", "rounds"), [(1.9, 1), (float("nan"), 1), (2.0, 0)])
def test_loops_too_short_for_the_counter_are_refused(seconds, rounds):
    with pytest.raises(EffbookError, match="too short for a counter"):
        EnergyMeter(Counter("nvml", float), seconds=seconds, rounds=rounds)


def test_nothing_to_measure_is_refused():
    with pytest.raises(EffbookError, match="no function"):
        EnergyMeter(Counter("nvml", float)).measure({})


# --------------------------------------------------------------------------------------------------- a GPU's counter


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch):
    """A false nvidia-ml-py with one card, GPU-abc, that has taken 12,345 mJ."""
    module = types.ModuleType("pynvml")
    module.NVMLError = NVMLError
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = {"GPU-abc": "the card"}.__getitem__
    module.nvmlDeviceGetTotalEnergyConsumption = {"the card": 12_345}.__getitem__
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="abc"))
    return module


def test_a_gpus_millijoules_are_read_from_the_card_that_torch_means(nvml):
    counter = gpu_counter("cuda:0")
    assert (counter.source, counter.read_joules()) == ("nvml", 12.345)
    assert EnergyMeter.on("cuda:0").counter.source == "nvml"


def test_a_gpu_without_an_energy_counter_is_told_in_a_sentence_and_not_measured(nvml):
    def refuse(handle):
        raise NVMLError("Not Supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    with pytest.raises(EffbookError, match=r"has no energy counter that can be read \(Not Supported\); report"):
        gpu_counter("cuda:0")
    assert EnergyMeter.on("cuda:0") is None


def test_without_nvidia_ml_py_a_gpus_energy_is_not_measured(nvml, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(EffbookError, match="nvidia-ml-py, which is not installed"):
        gpu_counter("cuda:0")
    assert EnergyMeter.on("cuda:0") is None


def test_a_cpu_is_no_gpu():
    with pytest.raises(EffbookError, match="no CUDA device cpu"):
        gpu_counter("cpu")


# ------------------------------------------------------------------------------------------------------ RAPL's files


@pytest.fixture
def rapl(tmp_path):
    """Two packages; the first with its cores and its memory, and a zone of the whole platform."""
    zones = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "package-1", "2": "psys"}
    for place, name in zones.items():
        zone = tmp_path / f"intel-rapl:{place}"
        zone.mkdir()
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text("900\n")
        (zone / "max_energy_range_uj").write_text("1000\n")
    (tmp_path / "intel-rapl-mmio:0").mkdir()  # the first package once more
    return tmp_path


def _add(folder, place, uj):
    file = folder / f"intel-rapl:{place}" / "energy_uj"
    file.write_text(f"{(int(file.read_text()) + uj) % 1000}\n")


def test_packages_and_memory_are_summed_and_their_parts_do_not_count_twice(rapl):
    counter = cpu_counter(rapl)
    for place, uj in {"0": 50, "0:0": 40, "0:1": 7, "1": 30, "2": 99}.items():
        _add(rapl, place, uj)
    assert counter.source == "rapl"
    assert counter.read_joules() == pytest.approx((50 + 7 + 30) / 1e6)


def test_a_counter_that_wraps_around_goes_on_growing(rapl):
    counter, seen = cpu_counter(rapl), []
    for _ in range(5):
        _add(rapl, "0", 300)
        seen.append(round(1e6 * counter.read_joules()))
    assert seen == [300, 600, 900, 1200, 1500]


def test_a_machine_without_rapl_or_with_files_that_cannot_be_read_says_so(rapl, tmp_path):
    with pytest.raises(EffbookError, match="shows no energy counter"):
        cpu_counter(tmp_path / "absent")
    (rapl / "intel-rapl:1" / "energy_uj").unlink()
    with pytest.raises(EffbookError, match=r"cannot be read \(no such file or directory\); make energy_uj readable"):
        cpu_counter(rapl)
