//! Pictures as SVG, on a ground of their own, for light and dark pages.

use std::fmt::Write as _;

use crate::stats::number;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
/// Around the field: room for the title, the names of curves, the axes.
const TOP: f64 = 48.0;
const RIGHT: f64 = 215.0;
const BOTTOM: f64 = 58.0;
const LEFT: f64 = 84.0;

/// Told apart on white and on black, and by most who see colours otherwise.
const COLOURS: [&str; 8] =
    ["#2f81f7", "#e07b00", "#d64a6a", "#2da44e", "#a371f7", "#8a6d3b", "#7d8590", "#0fa3a3"];

const STYLE: &str = "<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.ground { fill: #ffffff }
.grid { stroke: #d8dee4 }
.fine { stroke: #eef1f4 }
.mark { stroke: #57606a; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ground { fill: #0d1117 }
  .grid { stroke: #30363d }
  .fine { stroke: #1c2128 }
  .mark { stroke: #9198a1 }
}
</style>
";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// Some points joined by a line.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Curves over two axes, each with its label and scale.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: (&'a str, Scale),
    pub(crate) y: (&'a str, Scale),
    pub(crate) curves: Vec<Curve>,
}

impl Plot<'_> {
    pub(crate) fn svg(&self) -> String {
        let all = || self.curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::over(self.x.1, all().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(self.y.1, all().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = head(WIDTH, HEIGHT, self.title);
        for (tick, fine) in x.ticks() {
            let at = x.place(tick);
            line(&mut svg, fine, (at, TOP), (at, HEIGHT - BOTTOM));
            if !fine {
                text(&mut svg, "middle", (at, HEIGHT - BOTTOM + 18.0), &tick_label(tick));
            }
        }
        for (tick, fine) in y.ticks() {
            let at = y.place(tick);
            line(&mut svg, fine, (LEFT, at), (WIDTH - RIGHT, at));
            if !fine {
                text(&mut svg, "end", (LEFT - 8.0, at + 4.0), &tick_label(tick));
            }
        }
        text(&mut svg, "middle", ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0), self.x.0);
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        writeln!(
            svg,
            "<text text-anchor=\"middle\" transform=\"translate(20 {middle}) rotate(-90)\">{}</text>",
            self.y.0
        )
        .unwrap();
        self.draw_curves(&mut svg, &x, &y);
        svg + "</svg>\n"
    }

    fn draw_curves(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let mut names = Vec::new();
        for (curve, colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
            let Some(&(_, last)) = curve.points.last() else { continue };
            let points: Vec<String> =
                curve.points.iter().map(|&(a, b)| format!("{:.1},{:.1}", x.place(a), y.place(b))).collect();
            writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
                points.join(" ")
            )
            .unwrap();
            // A curve of many points is a line; of few, each is a measurement.
            if points.len() < 12 {
                for point in &points {
                    let (cx, cy) = point.split_once(',').unwrap_or_default();
                    writeln!(svg, "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"3.5\" fill=\"{colour}\"/>").unwrap();
                }
            }
            names.push((y.place(last), curve.name.as_str(), *colour));
        }
        for (at, name, colour) in apart(names) {
            writeln!(
                svg,
                "<rect x=\"{}\" y=\"{:.1}\" width=\"10\" height=\"10\" rx=\"2\" fill=\"{colour}\"/>",
                WIDTH - RIGHT + 10.0,
                at - 5.0
            )
            .unwrap();
            text(svg, "start", (WIDTH - RIGHT + 26.0, at + 4.0), name);
        }
    }
}

/// Moves names off each other, each as near to the end of its curve as may be.
fn apart<'a>(mut names: Vec<(f64, &'a str, &'a str)>) -> Vec<(f64, &'a str, &'a str)> {
    const EACH: f64 = 17.0;
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    for place in 1..names.len() {
        names[place].0 = names[place].0.max(names[place - 1].0 + EACH);
    }
    let mut limit = HEIGHT - BOTTOM;
    for name in names.iter_mut().rev() {
        name.0 = name.0.min(limit);
        limit = name.0 - EACH;
    }
    names
}

/// One value of several.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// Values as bars that lie one below the other, with a mark where they are compared.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) bars: Vec<Bar>,
    pub(crate) mark: f64,
}

impl Bars<'_> {
    pub(crate) fn svg(&self) -> String {
        const EACH: f64 = 28.0;
        const NAMES: f64 = 240.0;
        let height = TOP + EACH * self.bars.len() as f64 + 40.0;
        let most = self.bars.iter().map(|bar| bar.value).fold(self.mark, f64::max);
        let place = |value: f64| NAMES + value / most * (WIDTH - NAMES - 80.0);
        let mut svg = head(WIDTH, height, self.title);
        for (row, bar) in self.bars.iter().enumerate() {
            let y = TOP + EACH * row as f64;
            let colour = if bar.name.starts_with("cachenat") { COLOURS[0] } else { COLOURS[6] };
            text(&mut svg, "end", (NAMES - 10.0, y + 18.0), &bar.name);
            writeln!(
                svg,
                "<rect x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"20\" rx=\"2\" fill=\"{colour}\"/>",
                y + 4.0,
                place(bar.value) - NAMES
            )
            .unwrap();
            text(&mut svg, "start", (place(bar.value) + 8.0, y + 18.0), &format!("{:.2}", bar.value));
        }
        let at = place(self.mark);
        let foot = height - 34.0;
        writeln!(svg, "<line class=\"mark\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{foot}\"/>")
            .unwrap();
        text(&mut svg, "start", (NAMES, height - 14.0), self.unit);
        svg + "</svg>\n"
    }
}

/// One direction of the field.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis that has room for all values, from one edge of the field to the other.
    fn over(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if !low.is_finite() {
            (low, high) = (1.0, 10.0);
        }
        match scale {
            Scale::Linear => low = low.min(0.0),
            // A curve should not stick to the edge, nor a decade hold nothing else.
            Scale::Log => (low, high) = (below(low / 1.05), -below(-high * 1.05)),
        }
        Self { scale, low, high, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + share * (self.to - self.from)
    }

    /// Where lines cross the field, and which of them are fine ones without a label.
    fn ticks(&self) -> Vec<(f64, bool)> {
        match self.scale {
            Scale::Linear => {
                (0..=5).map(|n| (self.low + (self.high - self.low) * f64::from(n) / 5.0, false)).collect()
            }
            Scale::Log => {
                let wide = self.high / self.low > 500.0;
                let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let ticks =
                    decades.flat_map(|decade| (1..10).map(move |n| (10_f64.powi(decade) * f64::from(n), n)));
                let inside = ticks.filter(|(tick, _)| (self.low * 0.999..=self.high * 1.001).contains(tick));
                inside.map(|(tick, n)| (tick, !(n == 1 || !wide && (n == 2 || n == 5)))).collect()
            }
        }
    }
}

/// The next of 1, 2, 5, 10, ... that is not above a value; with a sign, the other way round.
fn below(value: f64) -> f64 {
    let decade = 10_f64.powf(value.abs().log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    if value > 0.0 {
        steps.into_iter().rfind(|step| *step <= value).unwrap_or(decade)
    } else {
        -steps.into_iter().find(|step| *step >= -value).unwrap_or(10.0 * decade)
    }
}

fn tick_label(value: f64) -> String {
    if value >= 10.0 {
        return number(value.round());
    }
    let label = format!("{value:.3}");
    label.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn head(width: f64, height: f64, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"{title}\">\n{STYLE}<rect class=\"ground\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n"
    );
    writeln!(svg, "<text class=\"title\" x=\"20\" y=\"28\">{title}</text>").unwrap();
    svg
}

fn line(svg: &mut String, fine: bool, from: (f64, f64), to: (f64, f64)) {
    let class = if fine { "fine" } else { "grid" };
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(svg, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
        .unwrap();
}

fn text(svg: &mut String, anchor: &str, (x, y): (f64, f64), words: &str) {
    writeln!(svg, "<text text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>").unwrap();
}

#[cfg(test)]
mod tests {
    use super::{Axis, Scale, apart, below};

    #[test]
    fn log_axis_has_round_ends_and_equal_decades() {
        let axis = Axis::over(Scale::Log, [3.0, 48_000.0].into_iter(), 0.0, 100.0);
        assert_eq!((axis.low, axis.high), (2.0, 100_000.0));
        let decade = |from: f64| axis.place(from * 10.0) - axis.place(from);
        assert!((decade(3.0) - decade(900.0)).abs() < 1e-9);
    }

    #[test]
    fn rounding_outward_covers_the_value() {
        assert_eq!([below(0.07), below(4.9), below(5.0)], [0.05, 2.0, 5.0]);
        assert_eq!([below(-0.07), below(-4.9), below(-6.0)], [-0.1, -5.0, -10.0]);
    }

    #[test]
    fn labels_do_not_overlap() {
        let names = apart(vec![(100.0, "a", ""), (101.0, "b", ""), (361.0, "c", ""), (360.0, "d", "")]);
        assert!(names.windows(2).all(|pair| pair[1].0 - pair[0].0 > 16.9));
        assert!(names.iter().all(|name| name.0 <= 362.1));
    }
}
