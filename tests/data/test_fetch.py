"""Fetching: what is broken is fetched again, what was tampered with is refused, nothing that was there is lost."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from effbook import data
from effbook.data.cache import tree_checksum
from effbook.errors import EffbookError

GOOD = bytes(range(256)) * 40
CHANGED = GOOD[:-1] + b"?"


def from_address(house, url, **file):
    house.write(sources=[{"kind": "url", "files": [{"path": "a.bin", "url": url, **house.pin(GOOD), **file}]}])


def test_a_download_is_verified_and_then_served_from_the_cache(house, serve):
    url, asked = serve(GOOD)
    from_address(house, url)
    assert not data.is_cached("thing")
    folder = data.fetch("thing")
    assert folder == house.cache / "thing"
    assert (folder / "a.bin").read_bytes() == GOOD
    assert data.is_cached("thing")
    assert data.verify("thing") == []
    data.fetch("thing")
    assert len(asked) == 1
    assert not list(house.cache.glob(".incoming*"))


@pytest.mark.parametrize("bad", [CHANGED, GOOD[:-9], (GOOD[:100], len(GOOD)), GOOD + b"more"])
def test_a_broken_download_is_fetched_once_more(house, serve, bad):
    url, asked = serve(bad, GOOD)
    from_address(house, url)
    assert (data.fetch("thing") / "a.bin").read_bytes() == GOOD
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (CHANGED, "a.bin has been changed: its sha256 is"),
        (GOOD[:-9], "a.bin is truncated: 10231 of 10240 bytes"),
        ((GOOD[:100], len(GOOD)), "stopped after 100 of 10240 bytes"),
        (GOOD + b"more", "a.bin has been changed: 10244 bytes where the manifest says 10240"),
    ],
)
def test_a_download_that_stays_broken_is_refused_in_one_sentence(house, serve, bad, reason):
    url, asked = serve(bad)
    from_address(house, url)
    with pytest.raises(EffbookError) as caught:
        data.fetch("thing")
    message = str(caught.value)
    assert reason in message
    assert url in message
    assert "run 'effbook data fetch thing'" in message
    assert "\n" not in message
    assert len(asked) == 2
    assert not (house.cache / "thing").exists()
    assert not list(house.cache.glob(".incoming*"))


def test_an_md5_serves_where_nothing_better_is_published(house, serve):
    url, _ = serve(CHANGED)
    from_address(house, url, sha256=None, md5="0" * 32)
    with pytest.raises(EffbookError, match="its md5 is"):
        data.fetch("thing")


def test_a_damaged_copy_in_the_cache_is_fetched_again(house, serve):
    url, asked = serve(GOOD)
    from_address(house, url)
    path = data.fetch("thing") / "a.bin"
    path.write_bytes(CHANGED)
    assert "does not have its sha256" in data.verify("thing")[0]
    assert not data.is_cached("thing")
    data.fetch("thing")
    assert path.read_bytes() == GOOD
    path.unlink()
    assert data.verify("thing")[0] == "a.bin is missing"
    data.fetch("thing")
    assert path.read_bytes() == GOOD
    assert len(asked) == 3


def test_damage_that_keeps_size_and_time_is_found_by_verify_and_by_recheck(house, serve):
    url, asked = serve(GOOD)
    from_address(house, url)
    path = data.fetch("thing") / "a.bin"
    times = path.stat()
    path.write_bytes(CHANGED)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert data.verify("thing")
    data.fetch("thing", recheck=True)
    assert path.read_bytes() == GOOD
    assert len(asked) == 2


def test_a_stamp_changed_together_with_its_file_deceives_no_one(house, serve):
    url, _ = serve(GOOD)
    from_address(house, url)
    folder = data.fetch("thing")
    (folder / "a.bin").write_bytes(CHANGED)
    stamp = (folder / ".effbook.json").read_text()
    changed = stamp.replace(house.pin(GOOD)["sha256"], house.pin(CHANGED)["sha256"])
    (folder / ".effbook.json").write_text(changed)
    assert "not the file that the manifest pins" in " ".join(data.verify("thing"))


def test_what_was_cached_stays_when_fetching_again_fails(house, serve):
    url, _ = serve(GOOD, CHANGED)
    from_address(house, url)
    folder = data.fetch("thing")
    (folder / "a.bin").write_bytes(CHANGED)
    with pytest.raises(EffbookError):
        data.fetch("thing")
    assert (folder / "a.bin").read_bytes() == CHANGED


def test_two_processes_that_fetch_at_once_download_once(house, serve):
    url, asked = serve(GOOD)
    from_address(house, url)
    command = [sys.executable, "-c", "from effbook.data import fetch; print(fetch('thing'))"]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(2)))
    assert [run.returncode for run in done] == [0, 0], done
    assert len(asked) == 1


def test_what_a_killed_process_left_is_swept_away(house, serve):
    url, _ = serve(GOOD)
    from_address(house, url)
    (house.cache / ".incoming-thing.dead").mkdir()
    (house.cache / ".incoming-thing-else.alive").mkdir()
    data.fetch("thing")
    assert [path.name for path in house.cache.glob(".incoming*")] == [".incoming-thing-else.alive"]


def test_offline_the_error_names_every_source_and_where_to_put_the_files(house):
    house.write(
        sources=[
            {"kind": "url", "files": [{"path": "a.bin", "url": "http://127.0.0.1:9/a.bin"}]},
            {"kind": "local", "folder": "thing", "files": [{"path": "a.bin"}]},
        ]
    )
    with pytest.raises(EffbookError) as caught:
        data.fetch("thing")
    message = str(caught.value)
    assert "address http://127.0.0.1:9/a.bin: no connection" in message
    assert "local folder thing: there is no such folder" in message
    assert f"put a.bin into {house.local / 'thing'}" in message


def test_the_next_source_serves_when_the_first_cannot(house):
    (house.local / "thing").mkdir()
    (house.local / "thing" / "a.bin").write_bytes(GOOD)
    house.write(
        sources=[
            {"kind": "url", "files": [{"path": "a.bin", "url": "http://127.0.0.1:9/a.bin", **house.pin(GOOD)}]},
            {"kind": "local", "folder": "thing", "files": [{"path": "a.bin", **house.pin(GOOD)}]},
        ]
    )
    assert (data.fetch("thing") / "a.bin").read_bytes() == GOOD


def test_a_source_that_lacks_an_optional_file_serves_only_if_none_has_all(house, serve):
    (house.local / "thing").mkdir()
    (house.local / "thing" / "a.bin").write_bytes(GOOD)
    url, _ = serve(GOOD)
    local = {"kind": "local", "folder": "thing", "files": [{"path": "a.bin"}, {"path": "b.bin", "optional": True}]}
    online = {"kind": "url", "files": [{"path": name, "url": url} for name in ("a.bin", "b.bin")]}
    house.write("partial", sources=[local])
    house.write("whole", sources=[local, online])
    assert not (data.fetch("partial") / "b.bin").exists()
    assert data.is_cached("partial")
    assert (data.fetch("whole") / "b.bin").exists()
    (house.local / "thing" / "b.bin").write_bytes(GOOD)  # it turns up later
    assert (data.fetch("partial", recheck=True) / "b.bin").exists()


def test_unpinned_files_are_called_so(house):
    (house.local / "thing").mkdir()
    (house.local / "thing" / "a.bin").write_bytes(GOOD)
    house.write()
    data.fetch("thing")
    assert data.verify("thing") == ["unpinned: a.bin has no published checksum"]


def test_loading_what_was_not_fetched_says_what_to_run(house):
    house.borrow_whole("cifar10")
    with pytest.raises(EffbookError, match="run 'effbook data fetch cifar10'"):
        data.load_images("cifar10", "test")


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_an_archive_is_unpacked_and_its_content_pinned(house, form):
    (house.local / "thing").mkdir()
    archive = house.local / "thing" / "a.archive"
    inside = house.cache / "x.txt"
    inside.write_bytes(GOOD)
    if form == "tar":
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(inside, "top/folder/x.txt")
            opened.add(inside, "top/ignored.txt")
    else:
        with zipfile.ZipFile(archive, "w") as opened:
            opened.write(inside, "top/folder/x.txt")
            opened.write(inside, "top/ignored.txt")
    tree = tree_checksum({"here/x.txt": house.pin(GOOD)["sha256"]})
    file = {"path": "a.archive", "unpack_to": "here", "pick": "top/folder/", "tree_sha256": tree}
    house.write(sources=[{"kind": "local", "folder": "thing", "files": [file]}])
    folder = data.fetch("thing")
    assert [path.name for path in folder.rglob("*.*")] == [".effbook.json", "x.txt"]
    assert data.verify("thing") == []
    house.write("other", sources=[{"kind": "local", "folder": "thing", "files": [file | {"tree_sha256": "0" * 64}]}])
    with pytest.raises(EffbookError, match=r"the content of a\.archive has been truncated or changed"):
        data.fetch("other")


def test_an_archive_cannot_write_outside_its_folder(house):
    (house.local / "thing").mkdir()
    inside = house.cache / "x.txt"
    inside.write_bytes(GOOD)
    with tarfile.open(house.local / "thing" / "a.tar", "w") as opened:
        opened.add(inside, "../../escaped.txt")
    house.write(sources=[{"kind": "local", "folder": "thing", "files": [{"path": "a.tar", "unpack_to": "here"}]}])
    with pytest.raises(EffbookError, match="cannot be unpacked"):
        data.fetch("thing")
    assert not list(house.cache.parent.rglob("escaped.txt"))


@pytest.mark.parametrize("damage", ["cut", "changed", "encrypted"])
def test_an_archive_that_cannot_be_unpacked_is_told(house, damage):
    (house.local / "thing").mkdir()
    archive = house.local / "thing" / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("x.txt", GOOD)
    content = bytearray(archive.read_bytes())
    if damage == "encrypted":
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # a flag in either of the two headers
            content[content.index(signature) + offset] |= 1
    elif damage == "changed":
        content[60] ^= 255
    archive.write_bytes(content[:200] if damage == "cut" else content)
    house.write(sources=[{"kind": "local", "folder": "thing", "files": [{"path": "a.zip", "unpack_to": "here"}]}])
    with pytest.raises(EffbookError, match=r"a\.zip cannot be unpacked"):
        data.fetch("thing")


@pytest.mark.parametrize("stamp", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "source": "x", "files": 3}'])
def test_a_damaged_stamp_is_as_good_as_none(house, serve, stamp):
    url, asked = serve(GOOD)
    from_address(house, url)
    folder = data.fetch("thing")
    (folder / ".effbook.json").write_text(stamp)
    assert not data.is_cached("thing")
    data.fetch("thing")
    assert data.verify("thing") == []
    assert len(asked) == 2


def test_a_full_disk_is_told_by_the_source_that_it_stopped(house, serve, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "/x/a.part")

    url, _ = serve(GOOD)
    from_address(house, url)
    monkeypatch.setattr(sys.modules["effbook.data.fetch"], "write_stamp", full)
    with pytest.raises(EffbookError, match=r"address .*: the disk that /x/a\.part is to be written to is full"):
        data.fetch("thing")
    assert not (house.cache / "thing").exists()


def test_an_archive_within_the_archive_is_unpacked_where_it_is_meant(house):
    (house.local / "thing").mkdir()
    inside, inner = house.cache / "x.txt", house.cache / "inner.tar"
    inside.write_bytes(GOOD)
    with tarfile.open(inner, "w") as opened:
        opened.add(inside, "pictures/x.txt")
    with zipfile.ZipFile(house.local / "thing" / "a.zip", "w") as opened:
        opened.write(inner, "top/inner.tar")
    file = {"path": "a.zip", "unpack_to": ".", "inner": "top/inner.tar"}
    house.write(sources=[{"kind": "local", "folder": "thing", "files": [file]}])
    assert (data.fetch("thing") / "pictures" / "x.txt").read_bytes() == GOOD


def test_a_large_local_folder_is_linked_and_not_copied(house):
    (house.local / "thing" / "train").mkdir(parents=True)
    (house.local / "thing" / "train" / "a.bin").write_bytes(GOOD)
    house.write(sources=[{"kind": "local", "folder": "thing", "needs": ["train"]}])
    folder = data.fetch("thing")
    assert (folder / "train").is_symlink()
    assert data.is_cached("thing")
    shutil.rmtree(house.local / "thing")
    assert not data.is_cached("thing")
    with pytest.raises(EffbookError, match=r"put train into"):
        data.fetch("thing")


def package(house, registry, member, **more):
    file = {"path": "a.bin", "member": member, **house.pin(GOOD)}
    content = {"kind": "package", "registry": registry, "package": "effbook-test-thing", "files": [file], **more}
    house.write(sources=[content])


def test_pip_itself_fetches_a_wheel_from_whatever_index_it_has(house, monkeypatch):
    wheels = house.cache.parent / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "effbook_test_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("effbook_test_thing/a.bin", GOOD)
        info = "effbook_test_thing-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: effbook-test-thing\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    package(house, "pypi", "effbook_test_thing/a.bin", version="1.0")
    assert (data.fetch("thing") / "a.bin").read_bytes() == GOOD
    shutil.rmtree(house.cache / "thing")
    package(house, "pypi", "effbook_test_thing/a.bin", version="2.0")
    with pytest.raises(EffbookError, match=r"pip effbook-test-thing 2\.0: pip failed"):
        data.fetch("thing")


def stand_in(folder, name, script, monkeypatch):
    """A program on the path that does what a registry's client would."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_npm_is_asked_for_the_tarball_and_one_member_is_taken(house, monkeypatch):
    tarball, inside = house.local / "t.tgz", house.local / "a.bin"
    inside.write_bytes(GOOD)
    with tarfile.open(tarball, "w:gz") as opened:
        opened.add(inside, "package/deep/a.bin")
        opened.add(inside, "package/other.bin")
    script = f'[ "$1 $2" = "pack effbook-test-thing@1.0" ] && cp {tarball} effbook-test-thing-1.0.tgz'
    stand_in(house.local / "bin", "npm", script, monkeypatch)
    package(house, "npm", "package/deep/a.bin", version="1.0")
    folder = data.fetch("thing")
    assert (folder / "a.bin").read_bytes() == GOOD
    assert not (folder / "other.bin").exists()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_debians_client_is_asked_for_the_package(house, monkeypatch):
    tree = house.local / "tree"
    (tree / "usr/share/thing").mkdir(parents=True)
    (tree / "usr/share/thing/a.bin").write_bytes(GOOD)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: effbook-test-thing\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    subprocess.run(["dpkg-deb", "--build", str(tree), str(house.local / "t.deb")], check=True, capture_output=True)
    stand_in(house.local / "bin", "apt-get", f"cp {house.local / 't.deb'} thing_1_all.deb", monkeypatch)
    package(house, "debian", "usr/share/thing/a.bin")
    assert (data.fetch("thing") / "a.bin").read_bytes() == GOOD


def test_a_client_that_is_not_installed_is_named(house, monkeypatch):
    monkeypatch.setenv("PATH", str(house.local))
    monkeypatch.setattr(sys, "executable", str(house.local / "python"))
    package(house, "npm", "package/a.bin", version="1.0")
    with pytest.raises(EffbookError, match="npm is not installed"):
        data.fetch("thing")


def test_a_file_inside_an_installed_library_is_copied(house):
    house.borrow_whole("digits")
    digits = data.load_images("digits", "test")  # no command needed before
    assert digits.images.shape == (360, 8, 8)
    assert data.verify("digits") == []


@pytest.mark.slow
def test_a_hub_snapshot_is_asked_for_with_its_patterns_and_served_by_transformers(house, monkeypatch):
    import huggingface_hub
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    calls = []

    def snapshot(repository, *, revision, allow_patterns, local_dir):
        calls.append((repository, revision, allow_patterns))
        tiny = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8)
        GPT2LMHeadModel(tiny).save_pretrained(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    house.borrow_whole("gpt2-medium")
    folder = data.fetch("gpt2-medium")
    assert calls[0][0] == data.manifest("gpt2-medium").hub_id == "openai-community/gpt2-medium"
    assert "model.safetensors" in calls[0][2]
    assert AutoModelForCausalLM.from_pretrained(folder).config.n_embd == 8
    unpinned = "unpinned: model hub openai-community/gpt2-medium has no checksums in the manifest"
    assert data.verify("gpt2-medium") == [unpinned]


def test_a_local_folder_of_weights_serves_timm(house, monkeypatch):
    import huggingface_hub
    import timm
    from timm.models import save_for_hf

    def unreachable(*arguments, **options):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    house.borrow_whole("vit-b")
    (house.local / "vit-b").mkdir()
    model = timm.create_model("test_vit", pretrained=False, num_classes=3)
    save_for_hf(model, house.local / "vit-b", safe_serialization=True)
    again = timm.create_model(f"local-dir:{data.fetch('vit-b')}", pretrained=True)
    assert all((a == b).all() for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_manifests_are_read_again_from_another_folder(house, monkeypatch, tmp_path):
    house.write()
    assert set(data.manifests()) == {"thing"}
    other = tmp_path / "other"
    other.mkdir()
    content = yaml.safe_load((house.manifests / "thing.yaml").read_text())
    (other / "else.yaml").write_text(yaml.safe_dump(content | {"name": "else"}))
    monkeypatch.setenv("EFFBOOK_MANIFESTS", str(other))
    assert set(data.manifests()) == {"else"}
