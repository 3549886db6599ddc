//! A subscriber that misses something is told so, in the place where it is missing.

mod common;

use common::{builder, channel, connected, hasty, hear, message, ready};
use fleetwide_core_traits::{Bus, Signal};
use fleetwide_testkit::{Direction, Fault, Proxy, RedisServer};

#[tokio::test]
async fn slow_subscriber_is_told_how_many_messages_it_missed() {
    let server = RedisServer::start().await.unwrap();
    let redis = ready(builder(&server.url()).subscriber_messages_max(10)).await;
    let bus = redis.bus();
    let (mut slow, mut fast) = (bus.subscribe(&channel("a")), bus.subscribe(&channel("a")));
    assert_eq!(hear(&mut slow).await, Signal::Ready);
    assert_eq!(hear(&mut fast).await, Signal::Ready);
    for number in 0..25 {
        bus.publish(&channel("a"), number.to_string().into()).await.unwrap();
        assert_eq!(hear(&mut fast).await, message(&number.to_string()), "nobody waits for it");
    }
    for number in 0..10 {
        assert_eq!(hear(&mut slow).await, message(&number.to_string()));
    }
    assert_eq!(hear(&mut slow).await, Signal::Lagged(15));
    bus.publish(&channel("a"), "next".into()).await.unwrap();
    assert_eq!(hear(&mut slow).await, message("next"));
}

#[tokio::test]
async fn message_before_an_outage_is_heard_before_its_loss() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let redis = ready(builder(&proxy.url_like(&server.url()))).await;
    let bus = redis.bus();
    let mut heard = bus.subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    bus.publish(&channel("a"), "before".into()).await.unwrap();
    assert_eq!(hear(&mut heard).await, message("before"));
    proxy.refuse();
    proxy.cut();
    assert_eq!(hear(&mut heard).await, Signal::Lost);
    proxy.pass();
    assert_eq!(hear(&mut heard).await, Signal::Ready);
}

#[tokio::test]
async fn connection_that_swallows_messages_is_found_by_its_silence() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let listening = ready(hasty(&proxy.url_like(&server.url()))).await;
    let publishing = connected(&server).await;
    let mut heard = listening.bus().subscribe(&channel("a"));
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    // What the server says is lost, and nobody is told.
    proxy.set(Direction::ToClient, Fault::Discard);
    publishing.bus().publish(&channel("a"), "lost".into()).await.unwrap();
    assert_eq!(hear(&mut heard).await, Signal::Lost);
    proxy.pass();
    assert_eq!(hear(&mut heard).await, Signal::Ready);
    publishing.bus().publish(&channel("a"), "heard".into()).await.unwrap();
    assert_eq!(hear(&mut heard).await, message("heard"));
}
