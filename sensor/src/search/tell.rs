//! The answer in words.

use super::{Asked, Found, List, Preload, Rule, Weakness, Why};

// === impl Found ===

impl Found {
    /// The rule and where it stands, as one would look for it in the file: `RUNPATH $ORIGIN/../lib of
    /// /usr/sbin/x`.
    #[must_use]
    pub fn found_by(&self) -> String {
        let rule = self.rule.to_string();
        let name = self.name.as_deref().unwrap_or_default();
        match (&self.asked, &self.rule) {
            (Asked::Kernel, _) => "the kernel".to_owned(),
            (Asked::Preload(list), Rule::Lost) => {
                format!("{} {name}, which leads nowhere now", list.name())
            }
            (_, Rule::Gone) => "not known: its path does not lead to it now".to_owned(),
            (Asked::Preload(list), Rule::Path) => format!("{} {name}", list.name()),
            (Asked::Preload(list), _) => format!("{} {name}, {rule}", list.name()),
            (Asked::Needed(by), Rule::Path) => format!("path {name} in {}", by.display()),
            (Asked::Needed(_), _) => rule,
            (Asked::Opened, Rule::Unknown) => "dlopen with a path".to_owned(),
            (Asked::Opened, _) => format!("dlopen, perhaps by {rule}"),
        }
    }

    /// What is odd about the way, in the order in which it was gone.
    #[must_use]
    pub fn odd(&self) -> Vec<String> {
        let mut odd: Vec<String> = self.weak.iter().map(ToString::to_string).collect();
        if self.in_current && self.rule == Rule::Unknown {
            odd.push("it lies in the current directory of the process".to_owned());
        }
        odd
    }

    /// Who asked for it, and how.
    #[must_use]
    pub fn asked_by(&self) -> Option<String> {
        let name = self.name.as_deref()?;
        match &self.asked {
            Asked::Needed(by) => Some(format!("{} as {name}", by.display())),
            Asked::Kernel | Asked::Preload(_) | Asked::Opened => None,
        }
    }
}

// === impl Preload ===

impl Preload {
    fn name(self) -> &'static str {
        match self {
            Self::Variable => "LD_PRELOAD",
            Self::File => "/etc/ld.so.preload",
            Self::Audit => "LD_AUDIT",
        }
    }
}

// === impl Rule ===

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path => f.write_str("a path"),
            Self::Listed { list, of, element } => {
                f.write_str(&listed(*list, of.as_deref(), element))
            }
            Self::Cache => f.write_str("ld.so.cache"),
            Self::System(directory) => write!(f, "default directory {}", directory.display()),
            Self::Lost | Self::Gone | Self::Unknown => f.write_str("no rule"),
        }
    }
}

fn listed(list: List, of: Option<&std::path::Path>, element: &str) -> String {
    let element = if element.is_empty() { "\"\"" } else { element };
    match of {
        Some(of) => format!("{list} {element} of {}", of.display()),
        None => format!("{list} {element}"),
    }
}

// === impl Weakness ===

impl std::fmt::Display for Weakness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&listed(self.list, self.of.as_deref(), &self.element))?;
        let here = if self.hit { "it was found there" } else { "it was looked for there first" };
        let directory = self.directory.as_ref().map(|it| it.display().to_string());
        let directory = directory.as_deref().unwrap_or("not known");
        match self.why {
            Why::Current(None) => {
                write!(f, " means the current directory ({directory}); {here}")
            }
            Why::Current(Some(writer)) => write!(
                f,
                " means the current directory ({directory}), where {writer} may put files; {here}"
            ),
            Why::Writable(writer) => {
                write!(f, " leads to {directory}, where {writer} may put files; {here}")
            }
            Why::Missing(writer) => {
                write!(
                    f,
                    " leads to {directory}, which does not exist and {writer} may make; {here}"
                )
            }
        }
    }
}
