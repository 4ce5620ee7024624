//! What is made of this source, held against the tools and catalogues of others.

mod catalogue;
mod generated;
