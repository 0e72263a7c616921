//! DET curves and score histograms, as SVG and as pixels. Letters in SVG are text for the viewer's own font; pixels carry theirs.

use plotters::coord::Shift;
use plotters::prelude::*;
use thiserror::Error;

use super::raster::{Canvas, Raster};

/// Pixels of a plot.
const SIZE: (u32, u32) = (960, 640);
/// Height of letters in pixels.
const LETTERS: i32 = 20;
/// Bars of a histogram.
const BINS: usize = 80;
/// What tells curves apart, also to those who see red and green alike: Okabe and Ito's colours.
const INKS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A plot could not be drawn.
#[derive(Debug, Error)]
#[error("the plot `{title}` cannot be drawn: {reason}")]
pub struct PlotError {
    /// Which.
    pub title: String,
    /// The drawing library's word.
    pub reason: String,
}

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub enum Plot {
    /// Two error rates against each other over the threshold (detection error trade-off), both on logarithmic axes. A rate of zero has
    /// no place on such an axis: curves end where one error was not seen.
    Det {
        /// Above the plot.
        title: String,
        /// The names of the rates to the right and upwards.
        axes: [String; 2],
        /// Each curve's name and its points, 0 to 1.
        curves: Vec<(String, Vec<(f64, f64)>)>,
    },
    /// How scores are spread, each group as shares of its own.
    Histogram {
        /// Above the plot.
        title: String,
        /// What the scores are.
        axis: String,
        /// Each group's name and scores.
        groups: Vec<(String, Vec<f32>)>,
    },
}

impl Plot {
    /// What stands above it.
    pub fn title(&self) -> &str {
        match self {
            Plot::Det { title, .. } | Plot::Histogram { title, .. } => title,
        }
    }

    /// As an SVG document.
    pub fn svg(&self) -> Result<String, PlotError> {
        let mut svg = String::new();
        self.draw(SVGBackend::with_string(&mut svg, SIZE))?;
        Ok(svg)
    }

    /// As pixels.
    pub fn raster(&self) -> Result<Raster, PlotError> {
        let mut raster = Raster::white(SIZE.0, SIZE.1);
        self.draw(Canvas(&mut raster))?;
        Ok(raster)
    }

    fn draw<B: DrawingBackend>(&self, backend: B) -> Result<(), PlotError>
    where
        B::ErrorType: 'static,
    {
        let area = backend.into_drawing_area();
        let drawn = area.fill(&WHITE).and_then(|()| match self {
            Plot::Det { axes, curves, .. } => det(&area, self.title(), axes, curves),
            Plot::Histogram { axis, groups, .. } => histogram(&area, self.title(), axis, groups),
        });
        let drawn = drawn.and_then(|()| area.present());
        drawn.map_err(|error| PlotError { title: self.title().to_owned(), reason: error.to_string() })
    }
}

type Area<B> = DrawingArea<B, Shift>;
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn det<B: DrawingBackend>(area: &Area<B>, title: &str, axes: &[String; 2], curves: &[(String, Vec<(f64, f64)>)]) -> Drawn<B> {
    let range = || (1e-4..1.0f64).log_scale();
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", LETTERS))
        .margin(20)
        .margin_right(48)
        .x_label_area_size(60)
        .y_label_area_size(90)
        .build_cartesian_2d(range(), range())?;
    let label = |rate: &f64| format!("{} %", rate * 100.0);
    chart
        .configure_mesh()
        .x_desc(axes[0].as_str())
        .y_desc(axes[1].as_str())
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .label_style(("sans-serif", LETTERS))
        .draw()?;
    for ((_, points), ink) in curves.iter().zip(INKS.iter().cycle()) {
        let seen = points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0);
        chart.draw_series(LineSeries::new(seen, ink.stroke_width(3)))?;
    }
    names(area, curves.iter().map(|(name, _)| name.as_str()))
}

fn histogram<B: DrawingBackend>(area: &Area<B>, title: &str, axis: &str, groups: &[(String, Vec<f32>)]) -> Drawn<B> {
    let all = || groups.iter().flat_map(|(_, scores)| scores).map(|score| f64::from(*score)).filter(|score| score.is_finite());
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)));
    // Nobody's scores, or one score for all, still make a range.
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let width = (high - low) / BINS as f64;
    let shares = |scores: &[f32]| {
        let mut bins = [0.0f64; BINS];
        for score in scores {
            let bin = ((f64::from(*score) - low) / width).clamp(0.0, (BINS - 1) as f64) as usize;
            bins[bin] += 1.0 / scores.len() as f64;
        }
        bins
    };
    let bars: Vec<[f64; BINS]> = groups.iter().map(|(_, scores)| shares(scores)).collect();
    let highest = bars.iter().flatten().copied().fold(0.01, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", LETTERS))
        .margin(20)
        .margin_right(48)
        .x_label_area_size(60)
        .y_label_area_size(90)
        .build_cartesian_2d(low..high, 0.0..highest * 1.05)?;
    chart
        .configure_mesh()
        .x_desc(axis)
        .y_desc("share of its group")
        .x_label_formatter(&|score: &f64| format!("{score:.2}"))
        .y_label_formatter(&|share: &f64| format!("{:.0} %", share * 100.0))
        .label_style(("sans-serif", LETTERS))
        .draw()?;
    for (bins, ink) in bars.iter().zip(INKS.iter().cycle()) {
        let bar = |(index, share): (usize, &f64)| {
            let left = low + index as f64 * width;
            Rectangle::new([(left, 0.0), (left + width, *share)], ink.mix(0.5).filled())
        };
        chart.draw_series(bins.iter().enumerate().filter(|(_, share)| **share > 0.0).map(bar))?;
    }
    names(area, groups.iter().map(|(name, _)| name.as_str()))
}

/// What each colour is, at the upper right.
fn names<'a, B: DrawingBackend>(area: &Area<B>, names: impl Iterator<Item = &'a str>) -> Drawn<B> {
    for (row, (name, ink)) in names.zip(INKS.iter().cycle()).enumerate() {
        let top = 70 + row as i32 * (LETTERS + 8);
        let left = SIZE.0 as i32 - 330;
        area.draw(&Rectangle::new([(left, top), (left + 16, top + 16)], ink.filled()))?;
        area.draw_text(name, &("sans-serif", LETTERS).into_text_style(area), (left + 26, top))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plots(points: Vec<(f64, f64)>, scores: Vec<f32>) -> [Plot; 2] {
        let det = Plot::Det {
            title: "DET & more".into(),
            axes: ["FMR".into(), "FNMR".into()],
            curves: vec![("one <network>".into(), points)],
        };
        let histogram = Plot::Histogram { title: "scores".into(), axis: "score".into(), groups: vec![("mated".into(), scores)] };
        [det, histogram]
    }

    #[test]
    fn nothing_and_odd_numbers_are_drawn_as_an_empty_plot() {
        let odd = plots(vec![(0.0, 0.0), (0.0, 1.0)], vec![0.5, 0.5]);
        for plot in plots(Vec::new(), Vec::new()).into_iter().chain(odd) {
            assert!(plot.svg().unwrap().ends_with("</svg>\n"));
            assert_eq!(plot.raster().unwrap().rgb.len(), 960 * 640 * 3);
        }
    }

    #[test]
    fn names_are_escaped_in_svg_and_letters_are_pixels_in_the_other() {
        let [det, histogram] = plots(vec![(0.001, 0.5), (0.01, 0.1), (0.5, 0.001)], vec![0.1, 0.2, 0.2, 0.9]);
        let svg = det.svg().unwrap();
        assert!(svg.contains("DET &amp; more") && svg.contains("one &lt;network&gt;") && svg.contains("<polyline"));
        for plot in [det, histogram] {
            let raster = plot.raster().unwrap();
            let dark = raster.rgb.chunks_exact(3).filter(|pixel| pixel == &[0, 0, 0]).count();
            let blue = raster.rgb.chunks_exact(3).filter(|pixel| pixel[2] > pixel[0].saturating_add(60)).count();
            assert!(dark > 2000 && blue > 300, "{}: {dark} dark and {blue} blue pixels", plot.title());
        }
    }
}
