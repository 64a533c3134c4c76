"""The page in the Chromium that is found here, through Playwright; `make browser` runs these and the panel's."""

import pytest
from conftest import write_films, write_mall
from pages import HOSTILE, hostile_mall, page_of

WIDTHS = (360, 390, 1280)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where these pages lie: the mall in both languages, one with hostile names, and films, which have no segments."""
    made = tmp_path_factory.mktemp("pages")
    shops = {"mall": (write_mall, "en"), "korean": (write_mall, "ko"), "hostile": (hostile_mall, "en")}
    for name, (write, language) in {**shops, "films": (write_films, "en")}.items():
        page_of(write(made / f"{name}-data"), made / name, language=language, **{"with memory": True})
    return made


@pytest.fixture
def opened(browse, folder):
    """Opens one of these pages."""
    return lambda name, *arguments, **options: browse(folder / name / "report.html", *arguments, **options)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["mall", "korean", "hostile", "films"])
def test_it_fits_and_asks_for_nothing(opened, name, width, scheme):
    """At no width is there anything beyond the edge, but what scrolls in a box of its own."""
    with opened(name, width, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        beyond = """[...document.querySelectorAll("main *")].filter((one) => !one.closest(".scroll, .unseen, svg")
            && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"""
        assert page.evaluate(beyond) == []
        light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert light == (scheme == "light")


CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => rgb(text).slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4))
    .reduce((sum, one, place) => sum + one * [.2126, .7152, .0722][place], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgb(colour)[3] !== 0) return colour;
    }
  };
  return [...document.querySelectorAll("main *")].filter((one) => !one.closest("svg, .unseen")
    && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).map((one) => {
      const [dark, bright] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => a - b);
      return [(bright + .05) / (dark + .05), one.outerHTML.slice(0, 60)];
    }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_text_stands_out_from_what_is_behind_it(opened, scheme):
    """By 4.5 to 1, as the Web Content Accessibility Guidelines ask of small text."""
    with opened("mall", color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.evaluate(CONTRASTS) == []


def test_names_do_nothing_but_stand_there(opened):
    with opened("hostile") as page:
        assert page.title().startswith(HOSTILE[2])
        assert set(HOSTILE) < set(page.locator("#lists h3").all_text_contents())
        page.locator("#plane-table summary").click()
        page.locator("#plane-table td").first.wait_for()  # not by a text to evaluate, which the page's policy refuses
        assert set(HOSTILE[:2]) < set(page.locator("#plane-table th[scope=row]").all_text_contents())
        assert page.locator("main :is(script:not([type]), img, b[onclick], main b b)").count() == 0


def test_an_added_script_would_not_run(opened):
    """Whatever got into the page: its policy knows its own scripts by their content."""
    with opened("mall", expected="violates the following Content Security Policy directive") as page:
        page.evaluate("""() => {
            const script = document.createElement("script");
            script.textContent = "globalThis.ran = true";
            document.body.append(script);
        }""")
        assert page.evaluate("globalThis.ran") is None


def drawn(page) -> int:
    return page.locator("#plane path").count()


def test_personas_and_categories_are_toggled(opened):
    with opened("mall") as page:
        everything = drawn(page)
        customers = page.locator("#plane path:not(.product)").count()
        page.get_by_role("checkbox", name="Skincare").uncheck()
        assert drawn(page) < everything
        assert page.locator("#plane path:not(.product)").count() == customers
        for box in page.get_by_role("group", name="Customers by persona").get_by_role("checkbox").all():
            box.uncheck()
        assert page.locator("#plane path:not(.product)").count() == 0
        for box in page.locator(".legend input").all():
            box.check()
        assert drawn(page) == everything


def test_what_is_pointed_at_is_told(opened):
    """Each product by its name, brand, price, category and persona."""
    with opened("mall") as page:
        for box in page.get_by_role("group", name="Customers by persona").get_by_role("checkbox").all():
            box.uncheck()
        tip = page.locator("#plane-tip")
        assert tip.is_hidden()
        page.locator("#space").evaluate("(one) => one.scrollIntoView({ behavior: 'instant' })")
        told = set()
        for sign in page.locator("#plane path").all():
            box = sign.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            assert tip.is_visible()
            told.add(tip.inner_text())
        serum = next(one for one in told if one.startswith("Dew Serum"))
        assert [one in serum for one in ("Isul", "46,000", "Skincare", "Nearest persona")] == [True] * 4
        assert len(told) > 4
        page.mouse.move(1, 1)
        assert tip.is_hidden()


def test_the_picture_is_read_by_keyboard_alone(opened):
    with opened("mall") as page:
        page.locator("#space .plot").evaluate("(one) => one.scrollIntoView()")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "plane":
                break
        said = page.locator("#plane-said")
        heard = {said.text_content()}
        assert page.locator("#plane-tip").is_visible()
        # As far as it goes each way: one step each may lead round in a circle.
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            for _ in range(6):
                page.keyboard.press(key)
                heard.add(said.text_content())
        assert len(heard) > 3
        page.keyboard.press("Escape")
        assert page.locator("#plane-tip").is_hidden()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.type") == "checkbox"
        page.keyboard.press("Space")
        assert not page.locator(".legend input").first.is_checked()


def test_everything_that_does_something_is_reached_by_tab(opened):
    with opened("mall") as page:
        wanted = page.locator("main :is(a, summary, input, select, button, [tabindex='0'])")
        visible = sum(one.is_visible() for one in wanted.all())
        reached = set()
        for _ in range(visible):
            page.keyboard.press("Tab")
            where = "(one => one.outerHTML.slice(0, 200) + [...document.querySelectorAll('*')].indexOf(one))"
            reached.add(page.evaluate(f"{where}(document.activeElement)"))
            outlined = "getComputedStyle(document.activeElement).outlineStyle !== 'none' || document.activeElement.type"
            assert page.evaluate(outlined)
        assert len(reached) >= visible


def test_it_prints_on_a4(opened, tmp_path):
    """Nothing is cut off at the right: what scrolls on a screen fits on paper, and what is closed is open."""
    with opened("mall", 794) as page:
        before = page.locator("details[open]").count()
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open], .screen)").count() == 0
        wide = """[...document.querySelectorAll("table")].map((one) => [one.getBoundingClientRect(), one.caption])
            .filter(([box]) => box.right > innerWidth).map(([, caption]) => caption.textContent)"""
        assert page.evaluate(wide) == []
        printed = page.pdf(format="A4")
        assert printed.startswith(b"%PDF")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details[open]").count() == before


BROKEN = """() => {
  const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT), found = [];
  const top = (node, at) => {
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    return range.getBoundingClientRect().top;
  };
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (node.parentElement.closest("script, .path") || !node.data.trim()) continue;
    for (const one of node.data.matchAll(/[)%]\\u2060?(?=[가-힣])/g))
      if (Math.abs(top(node, one.index) - top(node, one.index + one[0].length)) > 4) found.push(node.data);
  }
  return found;
}"""


def test_no_line_breaks_before_a_particle_or_in_a_path(opened):
    with opened("korean", 390) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.eval_on_selector_all(".path", "all => all.map((one) => one.getClientRects().length)") == [1, 1]
        # As narrow as can be, a line breaks wherever it may.
        narrow = "all => all.forEach((one) => Object.assign(one.style, {width: '1px', overflowWrap: 'normal'}))"
        page.eval_on_selector_all("main p, main li", narrow)
        assert page.evaluate(BROKEN) == []
        assert "\u2060" in page.inner_text("main")
        assert "\u2060" not in "".join(page.locator("code").all_inner_texts())
