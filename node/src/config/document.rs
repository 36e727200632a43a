//! The default file and the reference page, both written from the table of keys.

use std::fmt::Write as _;

use super::table::KEYS;

/// The documented configuration file with all defaults. Reading it gives the defaults.
pub fn default_file() -> String {
    let mut out = String::from(
        "# Drystone's configuration: every key with its default. Each can be overridden by the environment variable\n\
         # named below it. Sizes: B, KiB, MiB, GiB, TiB; a bare number is bytes. Durations: ms, s, min, h, d.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.section();
        if of != section {
            section = of;
            push(&mut out, format_args!("\n[{section}]\n"));
        }
        out.push('\n');
        for line in wrap(key.doc, 110) {
            push(&mut out, format_args!("# {line}\n"));
        }
        push(&mut out, format_args!("# {}\n{name} = {}\n", key.variable(), key.default));
    }
    out
}

/// `docs/configuration.md`.
pub fn reference_page() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         One TOML file, given by `drystone server --config FILE`, else by the environment variable `DRYSTONE_CONFIG`;\n\
         without either the defaults hold. Every key can be overridden by an environment variable; precedence is\n\
         environment, then file, then default. `drystone config default` prints this table as a file, `drystone config\n\
         check --config FILE` (or `DRYSTONE_CONFIG`) reports every problem at once. Unknown keys, unknown variables that\n\
         begin with `DRYSTONE_`, and values of such variables that are not UTF-8 are errors; an empty variable counts as\n\
         not set.\n\n\
         Sizes are whole numbers with B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB for powers of ten), a bare number is\n\
         bytes; durations are whole numbers with ms, s, min, h, d, and need their unit. Secrets are never configuration\n\
         values: they are read from files.\n\n\
         | key | default | environment | meaning |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        let doc = key.doc.replace('|', "\\|");
        push(&mut out, format_args!("| `{}` | `{}` | `{}` | {doc} |\n", key.name, key.default, key.variable()));
    }
    out
}

fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(arguments).unwrap_or_default();
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.last().is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_in_docs_is_the_one_the_table_gives() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(page, reference_page(), "write the output of `drystone config default --markdown` to {path:?}");
    }
}
