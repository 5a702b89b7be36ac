//! Distributions as one picture that needs nothing else: SVG 1.1 for a report.

use std::fmt::Write;

use super::bins::{Bins, share, total};
use super::series::{Series, Split, summary};
use crate::cli::term::clean;

const BINS: usize = 24;
const WIDTH: f64 = 720.0;
/// From the left edge to the vertical axis, and from the right edge to the end of the horizontal.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
/// Above the first panel, one panel, and the bars in it.
const TOP: f64 = 60.0;
const PANEL: f64 = 260.0;
const BARS: f64 = 140.0;
/// From the top of a panel to the top of its bars.
const HEAD: f64 = 66.0;
/// Distinguishable also in grey and without red or green.
const BEFORE: &str = "#9aa7b2";
const AFTER: &str = "#0b4f8a";
/// Labels of the horizontal axis at most.
const TICKS: usize = 8;

/// The picture; `title` may hold any text.
pub(super) fn picture(all: &[Series], title: &str, split: Option<&Split>) -> String {
    let panels: Vec<_> =
        all.iter().filter_map(|series| Some((series, Bins::of(series, BINS)?))).collect();
    let rows = u32::try_from(panels.len().max(1)).unwrap_or(u32::MAX);
    let height = TOP + PANEL * f64::from(rows);
    let mut svg = head(title, split, height);
    if panels.is_empty() {
        text(&mut svg, (LEFT, TOP + 20.0), "start", "No login was let in at the first attempt.");
    }
    let mut top = TOP;
    for (series, bins) in &panels {
        panel(&mut svg, series, bins, split.is_some(), top);
        top += PANEL;
    }
    svg.push_str("</svg>");
    svg
}

// Writing to a string cannot fail: the results of `write!` are of no use.

fn head(title: &str, split: Option<&Split>, height: f64) -> String {
    let told = match split {
        Some(split) => format!("Before and after {}.", split.text()),
        None => "All of them.".to_owned(),
    };
    let about = "CPU times of logins that were let in at the first attempt, by method, as shares \
                 of each group over bins of equal ratio.";
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"title about\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#1a1a1a\">\n\
         <title id=\"title\">{}</title>\n<desc id=\"about\">{about} {}</desc>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"46\">{}</text>\n",
        xml(title),
        xml(&told),
        xml(title),
        xml(&told),
    );
    svg
}

fn panel(svg: &mut String, series: &Series, bins: &Bins, split: bool, top: f64) {
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-size=\"14\" font-weight=\"bold\">{}</text>",
        top + 18.0,
        xml(&series.heading())
    );
    let groups = [
        (if split { "before" } else { "logins" }, BEFORE, &series.before, &bins.before),
        ("after", AFTER, &series.after, &bins.after),
    ];
    let groups = groups.get(..if split { 2 } else { 1 }).unwrap_or_default();
    let (mut y, bottom) = (top + 36.0, top + HEAD + BARS);
    let bars = f64::from(u32::try_from(bins.before.len().max(1)).unwrap_or(u32::MAX));
    let step = (WIDTH - LEFT - RIGHT) / bars;
    let lanes = f64::from(u32::try_from(groups.len().max(1)).unwrap_or(1));
    let lane = step * 0.9 / lanes;
    let mut offset = step * 0.05;
    for (name, fill, samples, counts) in groups {
        legend(svg, y, fill, &told(name, samples));
        y += 16.0;
        let place = Place { left: LEFT + offset, bottom, step, lane, tallest: bins.tallest() };
        draw(svg, &place, bins, counts, (name, fill));
        offset += lane;
    }
    axes(svg, bins, bottom, step);
}

/// Where the bars of one group stand.
struct Place {
    left: f64,
    bottom: f64,
    step: f64,
    lane: f64,
    tallest: f64,
}

fn draw(svg: &mut String, place: &Place, bins: &Bins, counts: &[u32], (name, fill): (&str, &str)) {
    let all = total(counts);
    let mut x = place.left;
    for (edges, count) in bins.edges.windows(2).zip(counts) {
        if let ([low, high], 1..) = (edges, *count) {
            let height = BARS * share(*count, all) / place.tallest;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\" \
                 fill=\"{fill}\"><title>{name}: {count} of {all} from {low:.2} to {high:.2} ms\
                 </title></rect>",
                place.bottom - height,
                place.lane,
            );
        }
        x += place.step;
    }
}

fn axes(svg: &mut String, bins: &Bins, bottom: f64, step: f64) {
    let end = WIDTH - RIGHT;
    let top = bottom - BARS;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {top}V{bottom}H{end}\" fill=\"none\" stroke=\"#1a1a1a\"/>"
    );
    for (share, y) in [(0.0, bottom), (0.5, bottom - BARS / 2.0), (1.0, top)] {
        let label = format!("{:.0} %", share * bins.tallest() * 100.0);
        text(svg, (LEFT - 6.0, y + 4.0), "end", &label);
    }
    let every = bins.edges.len().div_ceil(TICKS).max(1);
    let mut x = LEFT;
    for (number, edge) in bins.edges.iter().enumerate() {
        if number % every == 0 {
            let _ =
                writeln!(svg, "<path d=\"M{x:.2} {bottom}v5\" fill=\"none\" stroke=\"#1a1a1a\"/>");
            text(svg, (x, bottom + 18.0), "middle", &format!("{edge:.1}"));
        }
        x += step;
    }
    text(svg, (end, bottom + 36.0), "end", "CPU time, ms (equal steps are equal ratios)");
}

fn legend(svg: &mut String, y: f64, fill: &str, label: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{fill}\"/>",
        y - 9.0
    );
    text(svg, (LEFT + 16.0, y), "start", label);
}

fn told(name: &str, samples: &[f64]) -> String {
    summary(samples).map_or_else(|| format!("{name}: none"), |summary| format!("{name}: {summary}"))
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, label: &str) {
    let label = xml(label);
    let _ =
        writeln!(svg, "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\">{label}</text>");
}

/// Text as XML 1.0 may hold it (its production 2, Char): what it may not, and what steers a
/// terminal that shows the file, is made visible.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roxmltree::Document;

    use super::super::series;
    use super::*;

    fn drawn(title: &str, incident: &str, times: &[f64]) -> String {
        let logins = series::tests::logins(times);
        let middle = logins.get(logins.len() / 2).map(|login| login.start);
        let split = middle.map(|at| Split { at, incident: Some(incident.to_owned()) });
        picture(&series::of(&logins, split.as_ref()), title, split.as_ref())
    }

    fn named<'a>(document: &'a Document<'a>, name: &str) -> Vec<&'a str> {
        let found = document.descendants().filter(|node| node.has_tag_name(name));
        found.filter_map(|node| node.text()).collect()
    }

    #[test]
    fn a_picture_has_title_axes_units_and_legend() {
        let svg = drawn("ssh logins on bastion", "7f3a", &[30.0, 31.0, 29.0, 36.0, 37.0, 36.5]);
        let document = Document::parse(&svg).unwrap();
        let root = document.root_element();
        assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
        assert_eq!(root.attribute("role"), Some("img"));
        assert_eq!(root.attribute("aria-labelledby"), Some("title about"));
        assert_eq!(named(&document, "title")[0], "ssh logins on bastion");
        let texts = named(&document, "text");
        for expected in [
            "publickey: CPU time from accept to the verdict",
            "publickey: CPU time of linking",
            "before: 3 logins (few), median 30.00 ms, 95 % below 30.00 ms",
            "CPU time, ms (equal steps are equal ratios)",
            "0 %",
        ] {
            assert!(texts.contains(&expected), "no {expected:?} in {texts:#?}");
        }
        assert!(texts.iter().any(|text| text.contains("(incident 7f3a)")), "{texts:#?}");
        let outside = ["<script", "href", "url(", "@import"];
        assert!(!outside.iter().any(|one| svg.contains(one)), "{svg}");
    }

    #[test]
    fn bars_stay_inside_the_picture() {
        let svg = drawn("t", "i", &[0.01, 5.0, 31.0, 29.0, 36.0, 1e5]);
        let document = Document::parse(&svg).unwrap();
        let number = |node: &roxmltree::Node<'_, '_>, name: &str| {
            node.attribute(name).map_or(0.0, |value| value.parse::<f64>().unwrap())
        };
        let height = number(&document.root_element(), "height");
        for bar in document.descendants().filter(|node| node.has_tag_name("rect")) {
            let (x, y) = (number(&bar, "x"), number(&bar, "y"));
            assert!(x >= 0.0 && x + number(&bar, "width") <= WIDTH + 0.01, "{bar:?}");
            assert!(y >= 0.0 && y + number(&bar, "height") <= height, "{bar:?}");
        }
    }

    #[test]
    fn nothing_to_draw_is_a_picture_that_says_so() {
        let svg = drawn("t", "i", &[]);
        let document = Document::parse(&svg).unwrap();
        assert!(named(&document, "text").contains(&"No login was let in at the first attempt."));
    }

    proptest! {
        #[test]
        fn any_name_gives_well_formed_xml_that_holds_it(
            name in any::<String>(), incident in any::<String>(),
            times in prop::collection::vec(1e-3_f64..1e7, 0..40),
        ) {
            let svg = drawn(&name, &incident, &times);
            let document = Document::parse(&svg).unwrap();
            let shown: String = clean(&name).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
            let title = document.descendants().find(|node| node.has_tag_name("title"));
            prop_assert_eq!(title.and_then(|node| node.text()).unwrap_or_default(), shown);
            prop_assert!(!svg.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
