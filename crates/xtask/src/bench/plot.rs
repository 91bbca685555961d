//! Plots as SVG, drawn by hand: one line per figure, one dot per system, with its spread.
//!
//! The axis is logarithmic, because Kafka, Oncelog and the floor are often ten times apart; dots and
//! not bars, because a bar's length means nothing on such an axis.

use std::fmt::Write;

use super::outcome::Spread;
use super::report::number;
use super::system::System;

/// What is plotted of one figure.
pub struct Line {
    pub label: String,
    pub values: Vec<(System, Spread)>,
}

pub struct Plot {
    pub title: &'static str,
    /// What the axis measures, with its unit and which way is better.
    pub axis: &'static str,
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 980.0;
/// Where labels end and the axis begins.
const LEFT: f64 = 450.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const LINE_HEIGHT: f64 = 24.0;

fn colour(system: System) -> &'static str {
    match system {
        System::Kafka => "#d95f02",
        System::Oncelog => "#1b6ca8",
        System::Floor => "#999999",
    }
}

impl Plot {
    /// `None` if there is nothing to show.
    pub fn svg(&self) -> Option<String> {
        let axis = Axis::over(&self.lines)?;
        let height = TOP + LINE_HEIGHT * self.lines.len() as f64 + BOTTOM;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(
            &mut svg,
            20.0,
            28.0,
            "start",
            &format!("<tspan font-size=\"17\">{}</tspan>", self.title),
        );
        legend(&mut svg);
        let bottom = height - BOTTOM;
        for tick in axis.ticks() {
            let x = axis.x(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"
            );
            text(&mut svg, x, bottom + 17.0, "middle", &number(tick));
        }
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        text(&mut svg, middle, bottom + 38.0, "middle", self.axis);
        for (at, line) in self.lines.iter().enumerate() {
            let y = TOP + LINE_HEIGHT * (at as f64 + 0.5);
            text(&mut svg, LEFT - 12.0, y + 4.0, "end", &line.label);
            for (system, spread) in &line.values {
                dot(&mut svg, &axis, y, *system, *spread);
            }
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>"
    );
}

fn legend(svg: &mut String) {
    let systems = [System::Kafka, System::Oncelog, System::Floor];
    let names = ["Apache Kafka", "Oncelog", "floor (a stub)"];
    for (at, (system, name)) in systems.into_iter().zip(names).enumerate() {
        let x = LEFT + 140.0 * at as f64;
        let fill = colour(system);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"48\" r=\"5\" fill=\"{fill}\"/>"
        );
        text(svg, x + 11.0, 52.0, "start", name);
    }
}

/// The median, and a line from the least to the greatest.
fn dot(svg: &mut String, axis: &Axis, y: f64, system: System, spread: Spread) {
    let (x, from, to) = (
        axis.x(spread.median),
        axis.x(spread.min),
        axis.x(spread.max),
    );
    let fill = colour(system);
    let _ = writeln!(
        svg,
        "<line x1=\"{from:.1}\" y1=\"{y}\" x2=\"{to:.1}\" y2=\"{y}\" stroke=\"{fill}\" \
         stroke-width=\"2\"/><circle cx=\"{x:.1}\" cy=\"{y}\" r=\"5\" fill=\"{fill}\">\
         <title>{} {}</title></circle>",
        system.name(),
        number(spread.median)
    );
}

/// From one value to another, by their logarithms.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    /// Wide enough for every value; zero has no place on it and is drawn at its beginning.
    fn over(lines: &[Line]) -> Option<Axis> {
        let spreads = lines.iter().flat_map(|line| &line.values);
        let all = spreads.flat_map(|(_, spread)| [spread.min, spread.max]);
        let positive: Vec<f64> = all.filter(|value| *value > 0.0).collect();
        let from = positive.iter().copied().reduce(f64::min)?;
        let to = positive.iter().copied().reduce(f64::max)?;
        Some(Axis {
            from: from * 0.8,
            to: to * 1.25,
        })
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value.max(self.from) / self.from).ln() / (self.to / self.from).ln();
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    /// 1, 2 and 5 times the powers of ten, and the powers alone if those would be too many.
    fn ticks(&self) -> Vec<f64> {
        let (low, high) = (
            self.from.log10().floor() as i32,
            self.to.log10().ceil() as i32,
        );
        let wide = self.to / self.from > 1000.0;
        let steps: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (low..=high).map(|exponent| 10f64.powi(exponent));
        let all = powers.flat_map(|power| steps.iter().map(move |step| power * step));
        all.filter(|tick| (self.from..=self.to).contains(tick))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_placed_by_their_logarithm() {
        let spread = |value| Spread {
            median: value,
            min: value,
            max: value,
        };
        let line = |value| Line {
            label: "x".to_owned(),
            values: vec![(System::Kafka, spread(value))],
        };
        let axis = Axis::over(&[line(1.0), line(100.0)]).unwrap();
        let [one, ten, hundred] = [1.0, 10.0, 100.0].map(|value| axis.x(value));
        assert!(
            (2.0 * ten - one - hundred).abs() < 1e-6,
            "{one} {ten} {hundred}"
        );
        assert!(LEFT < one && hundred < WIDTH - RIGHT);
        assert_eq!(axis.x(0.0), LEFT);
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn nothing_measured_is_no_plot() {
        let plot = Plot {
            title: "t",
            axis: "a",
            lines: Vec::new(),
        };
        assert!(plot.svg().is_none());
    }
}
