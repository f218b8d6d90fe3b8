use crate::clock::Clock;
use crate::log::Reader;
use tokio_util::sync::CancellationToken;
#[derive(Default)]
pub struct Options;
pub struct Server(Reader);
impl Server {
    pub fn new(
        r: Reader,
        _c: Clock,
        _o: Options,
        _reg: prometheus::Registry,
    ) -> anyhow::Result<Server> {
        Ok(Server(r))
    }
    pub async fn run(
        self,
        _l: tokio::net::TcpListener,
        s: CancellationToken,
    ) -> anyhow::Result<()> {
        s.cancelled().await;
        Ok(())
    }
}
