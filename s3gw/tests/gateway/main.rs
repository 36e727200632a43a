//! The gateway as its clients meet it: signed requests in, answers out, over a store in memory that keeps S3's promises.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod buckets;
#[cfg(test)]
mod client;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod multipart;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod wire;
