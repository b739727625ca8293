//! The configuration as a page of documentation: `docs/configuration.md` is what this makes, and a test
//! holds it to that. What is in force at a node is printed in `print.rs`.

use std::fmt::Write as _;

use super::Config;

/// What comes before the tables.
const HEAD: &str = "\
<!-- Made by `roost config docs` out of crates/roost/src/config/mod.rs. After a change there:
     cargo run -q -p roost -- config docs > docs/configuration.md -->

# Configuration

A node reads a TOML file (`--config FILE`, or `ROOST_CONFIG`), then variables, then flags, the later winning. Each key
can be given in all three ways where it has a flag, else in the first two:

```toml
[edge]
addr = \"0.0.0.0:7080\"   # ROOST_EDGE__ADDR=0.0.0.0:7080, --edge-addr 0.0.0.0:7080
```

`roost config check` says all that is wrong at once, with the place where it was said. `roost config print` shows every
key with its value in force; secrets are hidden.

Durations are a whole number with its unit: `500ms`, `10s`, `5m`, `24h`, `7d`.
";

impl Config {
    /// Every key with its type, default, variable, flag and meaning, as Markdown. `flags` are the keys
    /// that have one, with it.
    pub fn to_markdown(flags: &[(&str, &str)]) -> String {
        let mut out = HEAD.to_owned();
        let mut section = "";
        for row in Self::default().rows() {
            if row.section != section {
                section = row.section;
                let about = row.about.trim();
                let head = "| key | type | default | variable | flag | meaning |\n|---|---|---|---|---|---|";
                line(&mut out, format_args!("\n## {section}\n\n{about}\n\n{head}"));
            }
            let key = format!("{section}.{}", row.key);
            let variable = format!("ROOST_{}", key.replace('.', "__").to_uppercase());
            let flag = flags.iter().find(|(known, _)| *known == key);
            let flag = flag.map_or(String::new(), |(_, flag)| format!("`{flag}`"));
            let default = row.value.map_or("not set".to_owned(), |value| format!("`{value}`"));
            let meaning = row.doc.trim().replace('|', "\\|");
            line(
                &mut out,
                format_args!(
                    "| `{key}` | {} | {default} | `{variable}` | {flag} | {meaning} |",
                    row.kind
                ),
            );
        }
        out
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}
