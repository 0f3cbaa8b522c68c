//! Line charts as inline SVG. Lines are drawn in a box that stretches with the page; all text is
//! HTML above it, so that it stays readable on a phone.

use std::fmt::Write as _;

use super::text::{escape, number, short};

/// One chart.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What the horizontal axis counts.
    pub(super) unit: &'a str,
    pub(super) series: Vec<Series<'a>>,
    /// Whether the vertical axis begins at zero.
    pub(super) from_zero: bool,
}

/// One line of a chart.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// The class that the style sheet gives a colour.
    pub(super) class: &'a str,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether each point is marked, with its value in a tooltip.
    pub(super) dots: bool,
}

/// The box's inner size in its own units.
const SIZE: f64 = 1000.0;
/// Points that a line is thinned to: more than a screen has columns for.
const MOST_POINTS: usize = 600;

impl Chart<'_> {
    /// The chart as a `figure`; nothing where no line has two points.
    pub(super) fn render(&self) -> String {
        if self.series.iter().all(|series| series.points.len() < 2) {
            return String::new();
        }
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (left, right) = range(points().map(|point| point.0));
        let (low, high) = range(points().map(|point| point.1));
        let low = if self.from_zero { 0.0 } else { low };
        let ticks = ticks(low, high, 4, 0.0);
        let bottom = low.min(ticks[0]);
        let top = high.max(ticks[ticks.len() - 1]);
        let scale = Scale { left, right, bottom, top };

        let mut html = format!("<figure><figcaption>{}", escape(self.title));
        for series in self.series.iter().filter(|series| !series.name.is_empty()) {
            let (class, name) = (series.class, escape(series.name));
            let _ = write!(html, "<span class=\"key {class}\">{name}</span>");
        }
        html.push_str("</figcaption><div class=\"chart\">");
        html.push_str(&self.drawing(&scale, &ticks));
        for tick in &ticks {
            let at = scale.up(*tick) / SIZE * 100.0;
            let _ = write!(html, "<span class=y style=\"bottom:{at:.2}%\">{}</span>", short(*tick));
        }
        for tick in
            self::ticks(left, right, 5, 1.0).iter().filter(|tick| (left..=right).contains(tick))
        {
            let at = scale.across(*tick) / SIZE * 100.0;
            let _ = write!(html, "<span class=x style=\"left:{at:.2}%\">{}</span>", short(*tick));
        }
        let _ = write!(html, "</div><p class=unit>{}</p></figure>", escape(self.unit));
        html
    }

    fn drawing(&self, scale: &Scale, ticks: &[f64]) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {SIZE} {SIZE}\" preserveAspectRatio=none role=img \
             aria-label=\"{}\">",
            escape(self.title)
        );
        for tick in ticks {
            let y = SIZE - scale.up(*tick);
            let _ = write!(svg, "<path class=grid d=\"M0 {y:.1}H{SIZE}\"/>");
        }
        for series in &self.series {
            let class = series.class;
            let mut path = String::new();
            for (index, point) in thinned(&series.points).enumerate() {
                let (x, y) = scale.place(*point);
                let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
            }
            let _ = write!(svg, "<path class=\"line {class}\" d=\"{path}\"/>");
            for point in series.points.iter().filter(|_| series.dots) {
                let (x, y) = scale.place(*point);
                let (at, value) = (number(point.0), number(point.1));
                let _ = write!(
                    svg,
                    "<path class=\"dot {class}\" d=\"M{x:.1} {y:.1}h0\">\
                     <title>{} {at}: {value}</title></path>",
                    escape(self.unit)
                );
            }
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Where values are in the box.
struct Scale {
    left: f64,
    right: f64,
    bottom: f64,
    top: f64,
}

impl Scale {
    fn across(&self, x: f64) -> f64 {
        (x - self.left) / (self.right - self.left) * SIZE
    }

    fn up(&self, y: f64) -> f64 {
        (y - self.bottom) / (self.top - self.bottom) * SIZE
    }

    /// SVG counts from the top.
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.across(x), SIZE - self.up(y))
    }
}

/// An average that follows the last values more than those long past, so that noise does not hide
/// where a line goes.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let weight = 2.0 / (points.len() as f64 / 20.0).max(2.0);
    let mut mean = points.first().map_or(0.0, |point| point.1);
    let follow = |(x, y): &(f64, f64)| {
        mean += (y - mean) * weight;
        (*x, mean)
    };
    points.iter().map(follow).collect()
}

/// Every n-th point, with the last.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = &(f64, f64)> {
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let keep = move |index: usize| index.is_multiple_of(every) || index == last;
    points.iter().enumerate().filter(move |(index, _)| keep(*index)).map(|(_, point)| point)
}

/// Lowest and highest value, a little apart even where all are equal.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        (0.0, 1.0)
    } else if high - low < 1e-12 {
        (low, low + low.abs().max(1e-9))
    } else {
        (low, high)
    }
}

/// About `count` round numbers around `low..=high`, at least `least` apart: the first at or below, the
/// last at or above.
fn ticks(low: f64, high: f64, count: usize, least: f64) -> Vec<f64> {
    let rough = ((high - low) / count as f64).max(least);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let lowest = (low / step + 1e-9).floor() as i64;
    let highest = (high / step - 1e-9).ceil() as i64;
    (lowest..=highest).map(|tick| tick as f64 * step).collect()
}
