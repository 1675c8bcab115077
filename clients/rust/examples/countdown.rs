use perennial::client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), perennial::client::Error> {
    let client = Client::from_env()?;
    let mut ticks = client.countdown(3);
    while let Some(tick) = ticks.next().await {
        println!("{}", tick?.remaining());
    }
    Ok(())
}
