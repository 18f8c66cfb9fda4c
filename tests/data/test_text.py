"""Text: each published format, read from a small tree written in it."""

import csv
import json
import tarfile

import pytest
import yaml

from effbook import data
from effbook.data.text import read_webnlg
from effbook.errors import EffbookError

ENTRY = """<benchmark><entries>
<entry category="{category}" eid="Id1" size="2">
  <originaltripleset><otriple>wrong | wrong | wrong</otriple></originaltripleset>
  <modifiedtripleset><mtriple>A_1 | city | B</mtriple><mtriple>B | country | C</mtriple></modifiedtripleset>
  <lex comment="good" lid="Id1"><sortedtripleset><sentence ID="1"><striple>x | y | z</striple></sentence>
    </sortedtripleset><text>A 1 is in B,
      in C.</text><template>T</template></lex>
  <lex comment="bad" lid="Id2"><text>Nonsense.</text></lex>
  <lex comment="good" lid="Id3"><text>B, C, has A 1.</text></lex>
</entry>
<entry category="{category}" eid="Id2" size="1">
  <originaltripleset/><modifiedtripleset><mtriple>D | e | F</mtriple></modifiedtripleset>
  <lex comment="good" lid="Id1"><text/></lex>
</entry>
</entries></benchmark>"""


def webnlg_tree(root):
    for split, category in (("train", "Airport"), ("dev", "Airport"), ("test", "Airport"), ("test", "Artist")):
        folder = root / "en" / split / "2triples"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{category}.xml").write_text(ENTRY.format(category=category))


def test_webnlg_gives_joined_triples_and_all_approved_texts(tmp_path):
    webnlg_tree(tmp_path)
    assert read_webnlg(tmp_path, "train") == [
        data.Pair(
            source="A_1 | city | B && B | country | C",
            references=("A 1 is in B, in C.", "B, C, has A 1."),
            category="Airport",
        )
    ]


def test_webnlgs_test_split_divides_into_seen_and_unseen_categories(tmp_path):
    webnlg_tree(tmp_path)
    parts = {s: [p.category for p in read_webnlg(tmp_path, s)] for s in ("test", "test-seen", "test-unseen")}
    assert parts == {"test": ["Airport", "Artist"], "test-seen": ["Airport"], "test-unseen": ["Artist"]}


def test_webnlg_comes_out_of_its_archive(house):
    webnlg_tree(house.cache / "tree")
    (house.local / "webnlg").mkdir()
    with tarfile.open(house.local / "webnlg" / "webnlg_v1.4_en.tar.gz", "w:gz") as archive:
        archive.add(house.cache / "tree" / "en", "en")
    house.borrow("webnlg", {"train": 1})
    data.fetch("webnlg")
    assert data.load_pairs("webnlg", "train")[0].category == "Airport"


def test_e2e_gathers_the_references_of_a_meaning(house):
    (house.local / "e2e").mkdir()
    rows = [("mr", "ref"), ("name[A]", "A."), ("name[B]", 'It is "B", yes.'), ("name[A]", "It is A.")]
    for name in ("devset.csv", "testset_w_refs.csv"):
        with (house.local / "e2e" / name).open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    house.borrow("e2e", {"train": 2, "dev": 2, "test": 2})
    data.fetch("e2e")
    pairs = data.load_pairs("e2e", "dev")
    assert [(p.source, p.references) for p in pairs] == [
        ("name[A]", ("A.", "It is A.")),
        ("name[B]", ('It is "B", yes.',)),
    ]
    with pytest.raises(EffbookError, match=r"no trainset\.csv; use another split"):
        data.load_pairs("e2e", "train")


def test_dart_is_read_from_its_json(house):
    (house.local / "dart").mkdir()
    content = [
        {
            "tripleset": [["A", "B C", "D"], ["[TABLECONTEXT]", "E", "F"]],
            "subtree_was_extended": False,
            "annotations": [{"source": "WikiSQL_lily", "text": "One."}, {"source": "x", "text": "Two."}],
        }
    ]
    for split in ("train", "dev", "test"):
        (house.local / "dart" / f"dart-v1.1.1-full-{split}.json").write_text(json.dumps(content))
    house.borrow("dart", {"train": 1, "dev": 1, "test": 1})
    data.fetch("dart")
    pair = data.load_pairs("dart", "test")[0]
    assert pair.source == "A | B C | D && [TABLECONTEXT] | E | F"
    assert pair.references == ("One.", "Two.")
    assert pair.category == "WikiSQL_lily"


def test_alpaca_joins_instruction_and_input(house):
    (house.local / "alpaca").mkdir()
    rows = [
        {"instruction": "Name a colour.", "input": "", "output": "Red."},
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    ]
    (house.local / "alpaca" / "alpaca_data.json").write_text(json.dumps(rows))
    house.borrow("alpaca", {"train": 2})
    data.fetch("alpaca")
    found = data.load_instructions("alpaca", "train")
    assert [(i.prompt, i.response) for i in found] == [("Name a colour.", "Red."), ("Add.\n\n1 and 2", "3")]


def test_mmlu_is_read_from_one_csv_a_subject(house):
    for split in ("dev", "test"):
        folder = house.local / "mmlu" / "data" / split
        folder.mkdir(parents=True)
        with (folder / f"high_school_physics_{split}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerow(['What, then, is "F"?', "ma", "mv", "mg", "m", "A"])
    house.borrow("mmlu", {"dev": 1, "test": 1})
    data.fetch("mmlu")
    found = data.load_instructions("mmlu", "test")[0]
    assert found.prompt == 'What, then, is "F"?\nA. ma\nB. mv\nC. mg\nD. m\nAnswer:'
    assert (found.response, found.category) == ("A", "high school physics")


BROKEN_TEXT = [
    ("webnlg", "en/test/1triples/A.xml", "<benchmark><entries>", "no element found"),
    ("webnlg", "en/test/1triples/A.xml", "<b><entry category='A'><lex><text>x</text></lex></entry></b>", "NoneType"),
    ("e2e", "testset_w_refs.csv", "meaning,text\na,b\n", "mr"),
    ("dart", "dart-v1.1.1-full-test.json", "[1, 2]", "not subscriptable"),
    ("dart", "dart-v1.1.1-full-test.json", '[{"tripleset": [["a"]], "annotations": []}]', "out of range"),
    ("dart", "dart-v1.1.1-full-test.json", "{", "property name"),
    ("mmlu", "data/test/law_test.csv", "What?,1,2,3,4,E\n", "the answer 'E' is none of A, B, C, D"),
    ("mmlu", "data/test/law_test.csv", "What?,1,2,3,A\n", "zip"),
    ("mmlu", "data/test/law_test.csv", "\n", "not enough values"),
    ("mmlu", "data/test/law_test.csv", f"{'x' * 200_000},1,2,3,4,A\n", "field larger than field limit"),
]


@pytest.mark.parametrize(("name", "file", "content", "words"), BROKEN_TEXT)
def test_a_text_that_is_not_in_its_format_is_one_sentence(house, name, file, content, words):
    (house.local / "x" / file).parent.mkdir(parents=True)
    (house.local / "x" / file).write_text(content)
    described = yaml.safe_load((house.real_manifests / f"{name}.yaml").read_text())
    source = {"kind": "local", "folder": "x", "needs": [file.partition("/")[0]]}
    house.write(**described | {"splits": {"test": 1}, "sources": [source]})
    data.fetch(name)
    load = data.load_instructions if name == "mmlu" else data.load_pairs
    with pytest.raises(EffbookError, match=f"the copy of {name} in .* is incomplete or laid out otherwise") as caught:
        load(name, "test")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
