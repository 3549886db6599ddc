//! A server forgets, or goes back in time, and every follower is told.
//!
//! Tried by hand, each alone:
//! - with `Sequence::contradicts` and `Sequence::follows` taken out of `Sequence::merge`, so that a
//!   replay compares no ids, `a_server_that_went_back_and_caught_up_again_is_found_out` fails: the
//!   follower goes on as if nothing had happened;
//! - with the comparison of the last id taken out of `Sequence::judge`,
//!   `a_server_with_another_last_entry_is_found_out` fails;
//! - with the comparison of epochs taken out of `raise_epoch.lua`,
//!   `two_followers_of_a_restored_server_begin_one_new_history` fails: each begins its own;
//! - with the write taken out of `beat.lua`, `a_cut_off_primary_verifies_nobody` fails.

mod common;

use common::fleet::Instance;
use common::{DEADLINE, NEVER, QUICK, fresh_tag};
use fleetwide_core_traits::log::Append;
use fleetwide_testkit::{RedisServer, eventually};

/// A server that can be sent back to its last `SAVE`.
async fn server() -> RedisServer {
    RedisServer::builder().config("enable-debug-command", "yes").start().await.unwrap()
}

async fn save(server: &RedisServer) {
    server.admin(&["SAVE"]).await.unwrap();
}

/// What a restart from an old snapshot does to the data.
async fn go_back(server: &RedisServer) {
    server.admin(&["DEBUG", "RELOAD", "NOSAVE"]).await.unwrap();
}

#[tokio::test]
async fn a_flushed_server_is_a_reset_and_what_follows_arrives() {
    let server = server().await;
    let one = Instance::start(&server.url(), &server.url(), &fresh_tag(), QUICK).await;
    one.append("a b").await;
    one.told.expect("first@0 a b").await;
    server.admin(&["FLUSHALL"]).await.unwrap();
    one.told.expect("first@0 a b reset@0").await;
    one.append("c").await;
    one.told.expect("first@0 a b reset@0 c").await;
}

/// The first entry after the loss comes by message, before any heartbeat.
#[tokio::test]
async fn an_entry_after_a_flush_is_not_lost_in_the_reset() {
    let server = server().await;
    let one = Instance::start(&server.url(), &server.url(), &fresh_tag(), NEVER).await;
    one.append("a").await;
    one.told.expect("first@0 a").await;
    server.admin(&["FLUSHALL"]).await.unwrap();
    one.append("b").await;
    one.told.expect("first@0 a reset@0 b").await;
}

#[tokio::test]
async fn two_followers_of_a_restored_server_begin_one_new_history() {
    let (server, tag) = (server().await, fresh_tag());
    let one = Instance::start(&server.url(), &server.url(), &tag, QUICK).await;
    let two = Instance::start(&server.url(), &server.url(), &tag, QUICK).await;
    one.append("a").await;
    save(&server).await;
    one.append("b c").await;
    for instance in [&one, &two] {
        instance.told.expect("first@0 a b c").await;
    }
    let before = one.log.position().unwrap().epoch;
    go_back(&server).await;
    for instance in [&one, &two] {
        instance.told.expect("first@0 a b c reset@0").await;
    }
    one.append("d").await;
    for instance in [&one, &two] {
        instance.told.expect("first@0 a b c reset@0 d").await;
    }
    assert_eq!(one.log.position(), two.log.position());
    assert_ne!(one.log.position().unwrap().epoch, before);
}

/// The server is behind, and then ahead again, before anybody looks. Only the ids of the entries
/// show that it is another history.
#[tokio::test]
async fn a_server_that_went_back_and_caught_up_again_is_found_out() {
    let (server, tag) = (server().await, fresh_tag());
    let one = Instance::start(&server.url(), &server.url(), &tag, NEVER).await;
    save_after(&server, &one, "a").await;
    one.append("b c").await;
    one.told.expect("first@0 a b c").await;
    go_back(&server).await;
    one.append_silently("x y z").await;
    one.log.check();
    one.told.expect("first@0 a b c reset@0").await;
}

/// The same, when the server ends exactly where the follower is.
#[tokio::test]
async fn a_server_with_another_last_entry_is_found_out() {
    let (server, tag) = (server().await, fresh_tag());
    let one = Instance::start(&server.url(), &server.url(), &tag, NEVER).await;
    save_after(&server, &one, "a").await;
    one.append("b c").await;
    one.told.expect("first@0 a b c").await;
    go_back(&server).await;
    one.append_silently("x y").await;
    one.log.check();
    one.told.expect("first@0 a b c reset@0").await;
}

async fn save_after(server: &RedisServer, one: &Instance, bodies: &str) {
    one.append(bodies).await;
    let last = bodies.split_whitespace().last().unwrap().to_owned();
    assert!(one.told.wait(|record| record.text.last() == Some(&last)).await);
    save(server).await;
}

#[tokio::test]
async fn a_lost_meta_is_a_reset_and_its_stream_is_not_read() {
    let (server, tag) = (server().await, fresh_tag());
    let one = Instance::start(&server.url(), &server.url(), &tag, QUICK).await;
    one.append("a b").await;
    one.told.expect("first@0 a b").await;
    let (meta, _) = Append::keys(&tag);
    server.admin(&[b"DEL", meta.as_bytes()]).await.unwrap();
    one.told.expect("first@0 a b reset@0").await;
    one.append("c").await;
    one.told.expect("first@0 a b reset@0 c").await;
}

#[tokio::test]
async fn a_lost_stream_is_a_gap_for_those_who_need_it_and_nothing_for_others() {
    let (server, tag) = (server().await, fresh_tag());
    let one = Instance::start(&server.url(), &server.url(), &tag, NEVER).await;
    one.append("a").await;
    one.told.expect("first@0 a").await;
    let (_, stream) = Append::keys(&tag);
    server.admin(&[b"DEL", stream.as_bytes()]).await.unwrap();
    one.append("b").await;
    one.told.expect("first@0 a b").await;

    one.append_silently("c").await;
    server.admin(&[b"DEL", stream.as_bytes()]).await.unwrap();
    one.append("d").await;
    one.told.expect("first@0 a b gap(2)@3 d").await;
}

/// What a primary without its replicas says proves nothing: it may have been deposed.
#[tokio::test]
async fn a_cut_off_primary_verifies_nobody() {
    let (server, tag) = (server().await, fresh_tag());
    let one = Instance::start(&server.url(), &server.url(), &tag, QUICK).await;
    let verified = || one.told.record().verified.expect("it was verified at the start").1;
    server.config_set("min-replicas-to-write", "1").await.unwrap();
    let is_degraded = async || !one.log.health().is_up();
    eventually(DEADLINE, "the beats to be refused", is_degraded).await;
    let before = verified();
    // Several beats later, none of them has proved anything.
    let health = one.log.health();
    assert!(health.reason().is_some_and(|reason| reason.contains("replicas")), "{health:?}");
    let beats = async || server.command_stats().await.unwrap()["evalsha"];
    let so_far = beats().await;
    eventually(DEADLINE, "more beats", async || beats().await > so_far + 5).await;
    assert_eq!(verified(), before);
    server.config_set("min-replicas-to-write", "0").await.unwrap();
    one.is_up().await;
    assert!(one.told.wait(|record| record.verified.unwrap().1 > before).await);
}
