//! Runs the plain mode: `plain FILE`. See `weft_node_proxy::plain`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("usage: plain FILE"))?;
    let config = serde_norway::from_str(&std::fs::read_to_string(path)?)?;
    weft_node_proxy::plain::Plain::start(&config)?.wait();
    Ok(())
}
