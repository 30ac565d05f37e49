from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from damage import cut, flip, lengthen, link, pipe
from small_index import publish, rows_found

from storage import IndexStore
from storage.errors import CorruptIndexError, IncompatibleIndexError
from storage.files.layout import measure
from storage.publish import write_pointer


def files_of(version: Path) -> list[str]:
    return sorted(path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file())


NAMES = ("catalog.duckdb", "images/ann.faiss", "images/vectors.arrow", "manifest.json", "texts/vectors.arrow")


@pytest.mark.parametrize("damage", [flip, cut, lengthen, Path.unlink, link, pipe])
@pytest.mark.parametrize("name", NAMES)
def test_damage_to_any_file_is_refused_and_the_file_named(store: IndexStore, name: str, damage: object) -> None:
    assert files_of(store.version_path(2)) == list(NAMES)
    damage(store.version_path(2) / name)  # type: ignore[operator]
    with pytest.raises(CorruptIndexError, match=f"versions/00000002/{name}"):
        store.open_version()
    with pytest.raises(CorruptIndexError, match=f"versions/00000002/{name}"):
        store.open_version(2)
    assert [check.name for check in store.verify().files if check.problem] == [f"versions/00000002/{name}"]


@pytest.mark.parametrize("more", [b"\n", b" "])
def test_a_manifest_that_means_the_same_and_is_written_otherwise_is_damaged(store: IndexStore, more: bytes) -> None:
    path = store.version_path(1) / "manifest.json"  # not that of the current version, whose checksum CURRENT has
    path.write_bytes(path.read_bytes() + more)
    with pytest.raises(CorruptIndexError, match="not written as manifests are"):
        store.open_version(1)
    assert not store.verify(1).ok


def test_two_swapped_files_are_refused(store: IndexStore) -> None:
    images, texts = (store.version_path(2) / name / "vectors.arrow" for name in ("images", "texts"))
    flip(texts)
    images.rename(images.with_name("x"))
    texts.rename(images)
    images.with_name("x").rename(texts)
    with pytest.raises(CorruptIndexError, match=r"images/vectors.arrow has SHA-256"):
        store.open_version()


def test_a_linked_folder_is_refused(store: IndexStore) -> None:
    folder = store.version_path(2) / "images"
    shutil.move(folder, store.path.parent / "images")
    folder.symlink_to(store.path.parent / "images")
    with pytest.raises(CorruptIndexError, match="versions/00000002/images"):
        store.open_version()


def test_a_write_ahead_log_slipped_in_is_refused(store: IndexStore) -> None:
    (store.version_path(2) / "catalog.duckdb.wal").write_bytes(b"x")
    with pytest.raises(CorruptIndexError, match=r"catalog.duckdb.wal does not belong to version 2; remove it"):
        store.open_version(verify="size")
    problems = [check for check in store.verify().files if check.problem]
    assert [check.name for check in problems] == ["versions/00000002/catalog.duckdb.wal"]


def test_sizes_alone_are_compared_on_request(store: IndexStore) -> None:
    path = store.version_path(2) / "images" / "vectors.arrow"
    path.write_bytes(path.read_bytes().replace(b"item_id-3", b"item_id-x"))
    store.open_version(verify="size").close()
    cut(store.version_path(2) / "images" / "vectors.arrow")
    with pytest.raises(CorruptIndexError, match=r"vectors.arrow has .* bytes and the manifest says"):
        store.open_version(verify="size")


def test_a_manifest_of_another_version_is_refused(store: IndexStore) -> None:
    shutil.copy(store.version_path(2) / "manifest.json", store.version_path(1) / "manifest.json")
    with pytest.raises(CorruptIndexError, match="says that it is version 2; it was moved"):
        store.open_version(1)
    write_pointer(store.path, 1, (store.version_path(2) / "manifest.json").read_bytes())
    with pytest.raises(CorruptIndexError, match="says that it is version 2"):
        store.open_version()


def test_checksums_that_fit_do_not_hide_files_that_do_not(store: IndexStore) -> None:
    shutil.copy(store.version_path(1) / "texts/vectors.arrow", store.version_path(2) / "texts/vectors.arrow")
    manifest = store.manifest(2)
    files = {**manifest.files, "texts/vectors.arrow": measure(store.version_path(2), "texts/vectors.arrow")}
    data = replace(manifest, files=files).to_json()
    (store.version_path(2) / "manifest.json").write_bytes(data)
    write_pointer(store.path, 2, data)
    with pytest.raises(CorruptIndexError, match=r"texts/vectors.arrow has rows 5 and the manifest says 6"):
        store.open_version()
    assert "has rows 5" in store.verify().problems[0]


@pytest.mark.parametrize("content", [b"", b"00000002", b"2 " + b"a" * 64, b"00000000 " + b"a" * 64, b"\xff" * 999])
def test_a_damaged_current_is_named_and_a_version_can_still_be_chosen(store: IndexStore, content: bytes) -> None:
    (store.path / "CURRENT").write_bytes(content)
    with pytest.raises(CorruptIndexError, match="CURRENT holds b"):
        store.open_version()
    assert [check.name for check in store.verify().files] == ["CURRENT"]
    store.open_version(1).close()
    assert store.rollback(2) == 2
    assert rows_found(store.path) == 6


def test_a_linked_current_is_refused(store: IndexStore) -> None:
    (store.path / "CURRENT").rename(store.path.parent / "CURRENT")
    (store.path / "CURRENT").symlink_to(store.path.parent / "CURRENT")
    with pytest.raises(CorruptIndexError, match=r"CURRENT cannot be opened .it is a symbolic link"):
        store.current()


def test_a_newer_format_is_refused_by_name(store: IndexStore) -> None:
    path = store.version_path(2) / "manifest.json"
    data = path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2')
    path.write_bytes(data)
    write_pointer(store.path, 2, data)
    with pytest.raises(IncompatibleIndexError, match="has format version 2, and this release reads up to 1"):
        store.open_version()
    assert "format version 2" in store.verify().problems[0]
    with pytest.raises(IncompatibleIndexError, match="has format version 2"):
        publish(store, 7)


def test_a_sound_version_verifies(store: IndexStore) -> None:
    found = store.verify()
    assert sorted(check.name for check in found.files) == [f"versions/00000002/{name}" for name in sorted(NAMES)]
    assert {check.checksum for check in found.files} == {"ok"}
    assert {check.outcome for check in found.structure} == {"ok"}
    assert found.ok
    assert found.version == 2


def test_hidden_files_of_the_desktop_are_no_concern(store: IndexStore) -> None:
    (store.version_path(2) / ".DS_Store").touch()
    (store.path / "versions" / "notes.txt").touch()
    assert rows_found(store.path) == 6
    assert store.versions() == [1, 2]
