//! The form in which metrics are defined: the doc comment is the help text.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts,
};

/// What is known of a metric without a running sensor.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Name with unit.
    pub name: &'static str,
    /// Meaning.
    pub help: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
}

/// A metric type that can be made from its definition.
pub(super) trait Build: Collector + Clone + Sized + 'static {
    fn build(definition: &Definition, buckets: &[f64]) -> prometheus::Result<Self>;
}

impl Definition {
    /// The help text on one line.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help.trim()
    }

    pub(super) fn opts(&self) -> Opts {
        Opts::new(self.name, self.help())
    }
}

macro_rules! build {
    (plain: $($kind:ident),+) => {$(
        impl Build for $kind {
            fn build(definition: &Definition, _: &[f64]) -> prometheus::Result<Self> {
                $kind::with_opts(definition.opts())
            }
        }
    )+};
    (labelled: $($kind:ident),+) => {$(
        impl Build for $kind {
            fn build(definition: &Definition, _: &[f64]) -> prometheus::Result<Self> {
                $kind::new(definition.opts(), definition.labels)
            }
        }
    )+};
}

build! { plain: Gauge, IntCounter, IntGauge }
build! { labelled: CounterVec, IntCounterVec, IntGaugeVec }

impl Build for Histogram {
    fn build(definition: &Definition, buckets: &[f64]) -> prometheus::Result<Self> {
        let opts = HistogramOpts::from(definition.opts()).buckets(buckets.to_vec());
        Self::with_opts(opts)
    }
}

impl Build for HistogramVec {
    fn build(definition: &Definition, buckets: &[f64]) -> prometheus::Result<Self> {
        let opts = HistogramOpts::from(definition.opts()).buckets(buckets.to_vec());
        Self::new(opts, definition.labels)
    }
}

/// Makes the struct `Metrics`: one public field per metric, and their definitions as `OWN`.
macro_rules! define {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $kind:ident = $name:literal $([$($label:literal),+])? $(=> $buckets:ident)?;
    )+) => {
        /// The exported numbers; cheap to clone, all clones are one.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)+
        }

        impl Metrics {
            const OWN: &'static [Definition] = &[$(Definition {
                name: $name,
                help: concat!($($help),+),
                labels: &[$($($label),+)?],
            },)+];

            /// Names of the fields, in the order of [`Self::OWN`].
            #[cfg(test)]
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            fn build(registry: Registry) -> prometheus::Result<Self> {
                $(let $field = {
                    let definition = Definition {
                        name: $name,
                        help: concat!($($help),+),
                        labels: &[$($($label),+)?],
                    };
                    let buckets: &[f64] = [$($buckets,)? &[]][0];
                    let metric = <$kind as Build>::build(&definition, buckets)?;
                    registry.register(Box::new(metric.clone()))?;
                    metric
                };)+
                Ok(Self { registry, $($field,)+ })
            }
        }
    };
}

pub(super) use define;
