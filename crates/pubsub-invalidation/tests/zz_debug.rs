mod common;
use common::fleet::Instance;
use common::*;
use fleetwide_testkit::*;
use fleetwide_core_traits::log::Append;
#[tokio::test]
async fn dbg() {
    let server = RedisServer::builder().append_only().start().await.unwrap();
    let tag = fresh_tag();
    let one = Instance::start(&server.url(), &server.url(), &tag, QUICK).await;
    one.append("a b").await;
    one.told.expect("first@0 a b").await;
    let (meta, stream) = Append::keys(&tag);
    println!("{:?} {:?}", server.admin(&[b"GET", meta.as_bytes()]).await, server.admin(&[b"XLEN", stream.as_bytes()]).await);
    drop(one);
    server.kill();
    server.restart().await.unwrap();
    println!("{:?} {:?}", server.admin(&[b"GET", meta.as_bytes()]).await, server.admin(&[b"XLEN", stream.as_bytes()]).await);
    println!("{}", server.log());
}
