"""What a notebook shows: badges on every number, verdict chips, links to records, pictures with alt text."""

import dataclasses
import xml.etree.ElementTree as ET

import pytest
from recording import recorded

from effbook.exhibits import Look, exhibit, measured, plots, recipe_of, register, rows, theme
from effbook.exhibits import html as page
from effbook.exhibits.rows import ROOM, parts_of
from effbook.exhibits.text import number
from effbook.runs.profiles import scale


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """All of fig-3.7 for d = 8 and a count of tab-3.17, under paper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFBOOK_RECORDS", str(tmp_path_factory.mktemp("records")))
        record_all()
        yield


def record_all():
    found = exhibit("fig-3.7")
    runs = []
    for row in ("nola-d8", "pranc-d8"):
        for i, column in enumerate(found.columns):
            recipe = recipe_of(found, found.row(row), column)
            runs += [(dataclasses.replace(recipe, seed=s), {"coverage": min(1.0, 0.1 * (i + s + 1))}) for s in range(3)]
    counted = exhibit("tab-3.17")
    runs.append((recipe_of(counted, counted.row("nola"), counted.column("trainable")), {"trainable": 12_876}))
    for run, metrics in runs:
        recorded(run, "paper", metrics)


@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_every_exhibit_is_well_formed_html_with_its_badge(profile):
    look = Look()
    for exhibit_id, found in register().items():
        html = page.html(exhibit_id, profile, plot=False, look=look)
        tree = ET.fromstring(f"<div>{html}</div>")
        assert page.badge(profile) in html
        rows = [row for row in tree.iter("tr") if row.get("class") == "eff-measured"]
        for row in rows:  # no measured line without a badge
            assert any("eff-badge" in (part.get("class") or "") for part in row[0].iter("span")), exhibit_id
        chips = [part for part in tree.iter("span") if "eff-verdict" in (part.get("class") or "")]
        assert len(chips) == len(found.claims), exhibit_id


def text_of(html):
    return " ".join("".join(ET.fromstring(f"<div>{html}</div>").itertext()).split())


def test_an_exhibit_spells_out_all_that_its_file_holds(rich_exhibit):
    for html in (page.html(rich_exhibit.id, "mini", plot=False), page.printed_html(rich_exhibit.id, "mini")):
        text = text_of(html)
        for part in (
            "Formbars",
            "ShowsBars that climb.",
            "Acrossmethod",
            "Upwardsaccuracy",
            "Seriesone; two",
            "Given in the textAll.",
            "Drawn anew byThe recipe.",
            "Epochs setting",
            "NOLA† own run",
            "LoRA[1] quoted",
            "70.1 (0.4)*",
            "–[2]",
            "?[3]",
            "* own augmentation",
            "† run again",
            "[1] Quoted from the LoRA paper.",
            "[2] Printed as a dash: nothing to train.",
            "Waits for: The recipes of a chapter.",
            "the printed values contradict it",
            "1 erratum",
            "It says two. One.",
            "Row a: read 7O.1, taken as 70.1. The sum.",
        ):
            assert part in text, part
    assert "<details>" in page.html(rich_exhibit.id, "mini", plot=False)


def test_on_a_printed_page_nothing_is_folded_and_the_style_is_the_pages(rich_exhibit):
    html = page.printed_html(rich_exhibit.id, "mini", links='<a href="n.html">x</a>', errata="e.html#fig-9.1")
    tree = ET.fromstring(html)
    assert page.STYLE not in html
    assert [part.get("open") for part in tree.iter("details")] == ["open", "open"]
    assert [a.get("href") for a in tree.iter("a")] == ["n.html", "e.html#fig-9.1"]
    assert [part.text for part in tree.iter("span") if part.get("class") == "eff-state"] == ["waiting"]
    assert tree.get("id") is None


def test_settings_are_told_apart_and_boldface_and_underlines_are_kept(rich_exhibit):
    tree = ET.fromstring(page.printed_html(rich_exhibit.id, "mini"))
    assert [cell.text for cell in tree.iter("td") if cell.get("class") == "eff-set"] == ["100 (x2)", None]
    assert [part.text for part in tree.iter("strong")] == ["70.1 (0.4)"]
    assert [part.text for part in tree.iter("u")] == ["47K"]


def test_columns_of_one_group_stand_under_its_name():
    tree = ET.fromstring(page.printed_html("tab-3.15", "mini"))
    heads = list(tree.iter("thead"))
    wide = [[(cell.text, int(cell.get("colspan"))) for cell in upper if cell.get("colspan")] for upper, _ in heads]
    assert wide == [[("CIFAR-10", 2), ("CIFAR-100", 2)], [("CUB-200-2011", 2), ("Caltech-101", 2)]]
    assert [len(lower) for _, lower in heads] == [4, 4]
    columns = sum(len(upper) - len(groups) + len(lower) - 1 for (upper, lower), groups in zip(heads, wide, strict=True))
    assert columns == len(exhibit("tab-3.15").columns)


def test_no_part_of_a_wide_table_with_groups_has_more_columns_than_a_page_has_room_for():
    for found in register().values():
        parts = parts_of(found)
        assert sum(parts, ()) == found.columns
        assert len(parts) == 1 or max(map(len, parts)) <= ROOM
    assert [[column.id for column in part] for part in parts_of(exhibit("tab-3.1"))] == [
        ["mip-ssim", "mip-psnr", "mip-lpips", "mip-fps", "mip-mem", "mip-train"],
        ["tt-ssim", "tt-psnr", "tt-lpips", "tt-fps", "tt-mem", "tt-train"],
    ]


def test_rows_say_reported_only_where_something_is_measured(rich_exhibit):
    assert "reported" not in text_of(page.printed_html(rich_exhibit.id, "mini"))


def test_measured_values_link_to_pages_of_their_own_and_below_the_table_to_their_records():
    html = page.html("fig-3.7", "paper")
    tree = ET.fromstring(f"<div>{page.html('fig-3.7', 'paper', plot=False)}</div>")
    links = [a.get("href") for a in tree.iter("a")]
    assert links
    assert {link.rpartition("/")[0].removesuffix("/paper/nola") for link in links} == {
        "../../cells/fig-3.7",
        "../../records",
    }
    assert "42 records" in html


def test_a_count_carries_the_badge_of_arithmetic_under_any_profile():
    html = page.html("tab-3.17", "mini", plot=False)
    assert "paper, arithmetic" in html
    assert "12,876" in html


def test_a_table_scrolls_in_its_own_box_and_sets_no_page_colours():
    html = page.html("tab-3.15", "mini", plot=False)
    assert 'class="eff-scroll"' in html
    assert "overflow-x:auto" in page.STYLE
    assert "background:none" in page.STYLE
    assert "http" not in html


def test_a_plot_has_alt_text_with_numbers_and_no_background():
    html = page.plot_html("fig-3.7", "paper")
    assert 'alt="Rank of samples' in html
    assert "NOLA, d 8" in html
    with theme.themed():
        figure = plots.reported_beside_measured("fig-3.7", "paper")
    assert figure.get_facecolor()[3] == 0
    assert all(axis.get_facecolor()[3] == 0 for axis in figure.axes)


def test_every_exhibit_that_has_values_can_be_plotted_and_settings_have_no_panel():
    look = Look()
    for exhibit_id, found in register().items():
        columns = plots._columns(measured(exhibit_id, "mini", look), None)
        assert not any(column.setting for column in columns), exhibit_id
        numbers = [row.values.get(c.id) for row in found.rows for c in columns]
        assert all(number(text) is not None for text in numbers if text), exhibit_id


def test_reported_and_measured_share_an_axis_under_paper_only(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path))

    def titles(profile):
        found = exhibit("tab-3.17")
        recipe = recipe_of(found, found.row("nola"), found.column("accuracy"))
        recorded(scale(recipe, profile), profile, {"accuracy": 80.0})
        figure = plots.reported_beside_measured("tab-3.17", profile)
        return [axis.get_title() for axis in figure.axes]

    assert titles("paper") == ["Acc.\nreported and measured [paper]"]
    assert titles("mini") == ["Acc.\nreported", "Acc.\nmeasured [mini]"]


def test_a_plot_of_several_columns_is_no_wider_than_a_page_and_its_letters_stay_legible():
    figure = plots.reported_beside_measured("tab-2.8", "mini")
    assert len(figure.axes) in (3, 6)  # with records there are measured ones, too
    assert figure.get_size_inches()[0] <= plots.WIDTH_INCHES
    labels = [label for axis in figure.axes for label in (*axis.get_xticklabels(), *axis.get_yticklabels())]
    assert min(label.get_fontsize() for label in labels) >= 9
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert max(len(line) for name in names for line in name.splitlines()) <= plots.LONGEST_NAME


def test_colours_by_number_are_the_palettes_after_the_look_is_gone_too():
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.colors import to_rgba

    with theme.themed():
        figure, axis = plt.subplots()
        (line,) = axis.plot([0, 1], [0, 1], "o-", color="C2")
        text = axis.text(0, 0, "here", color="C3")
    plt.close(figure)
    palette = [to_rgba(colour) for colour in sns.color_palette(theme.PALETTE)]
    assert [line.get_color(), line.get_markerfacecolor(), text.get_color()] == [palette[2], palette[2], palette[3]]


def test_plotting_leaves_the_settings_outside_as_they_were():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.reported_beside_measured("tab-3.10", "mini")
    assert dict(mpl.rcParams) == before


def test_the_same_figure_is_the_same_picture():
    pictures = [theme.html(plots.reported_beside_measured("tab-3.17", "mini"), "alt") for _ in range(2)]
    assert pictures[0] == pictures[1]


def test_an_exhibit_without_anything_to_draw_has_no_picture():
    assert page.plot_html("fig-3.7", "smoke") == ""


def test_show_displays_html_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda what: shown.append(what.data))
    page.show("tab-3.17", "mini", plot=False)
    page.show_claims("tab-3.17", "mini")
    assert "Training on CIFAR-10" in shown[0]
    assert "eff-verdict" in shown[1]


def test_long_row_names_are_told_apart_by_their_count():
    found = exhibit("tab-3.10")
    named = plots.names(found, found.rows)
    assert "GPT-2 M, NOLA, QV, rank 8, 0.096M" in named
    assert len(set(named)) == len(named)


def test_values_and_verdicts_in_running_text_carry_their_scale():
    assert page.value("fig-3.7", "nola-d8", "n-4", "paper") == "0.200 ±0.248 [paper]"
    assert page.value("fig-3.7", "nola-d8", "n-4", "mini") == "not run"
    assert page.value("tab-3.17", "nola", "trainable", "mini") == "12,876 [paper, arithmetic]"
    assert page.verdict("tab-3.17", "outperforms", "mini") == "not run [mini]"


def test_an_exhibit_says_how_to_compute_it_again_what_that_took_and_which_data_it_reads():
    text = text_of(page.html("fig-3.7", "paper", plot=False))
    assert "effbook run fig-3.7 --profile paper --fresh" in text
    assert "Compute it again: 126 runs, 42 s one after the other" in text
    assert "It reads no data." in text
    text = text_of(page.html("tab-3.12", "mini", plot=False))
    assert "In no package registry: e2e." in text
    assert "Data: smollm2-135m." in text


def test_what_has_no_run_under_a_profile_offers_no_command():
    assert "Compute it again" not in text_of(page.html("tab-3.18", "mini", plot=False))


def test_a_state_that_all_values_of_a_line_share_is_told_once():
    cells = [
        rows.Ours(text=text, state=state, why=why)
        for text, state, why in (("1", "rechecked", "a"), ("2", "rechecked", "b"))
    ]
    columns = exhibit("fig-3.7").columns[:2]
    told, state, why = rows._hoisted(list(zip(columns, cells, strict=True)))
    assert (state, why, [cell.state for cell in told]) == ("rechecked", "a; b", ["", ""])
    cells[0] = rows.Ours(text="1", state="2 of 3 seeds")
    told, state, _ = rows._hoisted(list(zip(columns, cells, strict=True)))
    assert (state, [cell.state for cell in told]) == ("", ["2 of 3 seeds", "rechecked"])
