//! `coraclectl image ls`.

use std::io::{self, Write};

use coracle_cri_api::runtime_v1::Image;
use serde::Serialize;

use super::super::client::Client;
use super::super::table;
use super::ImageError;

/// Lists images.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// One image as printed; the JSON form is stable.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    tags: Vec<String>,
    digests: Vec<String>,
    size: u64,
}

pub(super) async fn run(client: &Client, arguments: &Arguments) -> Result<u8, ImageError> {
    let mut images: Vec<Row> = client.list_images().await?.into_iter().map(row).collect();
    images.sort_by(|a, b| (&a.tags, &a.id).cmp(&(&b.tags, &b.id)));
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Table => table::unless_closed(table::write(&mut out, &rows(&images)))?,
        Output::Json => {
            let text = serde_json::to_string_pretty(&images)?;
            table::unless_closed(writeln!(out, "{text}"))?;
        }
    }
    Ok(0)
}

fn row(image: Image) -> Row {
    Row {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
    }
}

fn rows(images: &[Row]) -> Vec<Vec<String>> {
    let mut rows = vec![["IMAGE", "ID", "SIZE"].map(str::to_owned).to_vec()];
    for image in images {
        let names: Vec<&str> = match (image.tags.is_empty(), image.digests.first()) {
            (false, _) => image.tags.iter().map(String::as_str).collect(),
            (true, Some(digest)) => vec![digest],
            (true, None) => vec!["-"],
        };
        for name in names {
            rows.push(vec![
                name.to_owned(),
                table::short(&image.id).to_owned(),
                table::size(image.size),
            ]);
        }
    }
    rows
}
