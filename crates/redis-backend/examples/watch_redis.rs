//! Follows the health of the server at `REDIS_URL`, and goes on when it is away.
//!
//! `REDIS_URL=redis://127.0.0.1 cargo run -p fleetwide-redis-backend --example watch_redis`
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::error::Error;

use fleetwide_redis_backend::{Redis, RedisUrl};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let text = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1".to_owned());
    let url = RedisUrl::parse(&text)?;
    println!("watching {url}; stop it with Ctrl-C, stop the server whenever you like");
    // Nothing waits for the server: the handle is there at once, whether the server is or not.
    let redis = Redis::builder(url).build()?;
    let mut health = redis.health_watch();
    loop {
        let now = health.borrow_and_update().clone();
        match now.reason() {
            Some(reason) => println!("{}: {reason}", now.name()),
            None => match redis.info().await {
                Ok(info) => println!("up, {} of memory in use", info.used_memory_human),
                Err(error) => println!("up, but no INFO: {error}"),
            },
        }
        if health.changed().await.is_err() {
            return Ok(());
        }
    }
}
