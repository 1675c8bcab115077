import { connect } from "perennial-client/node";

const client = connect();
const publisher = client.publisher();
for (let n = 0; n < 1_000; n += 1) {
  const { response } = await publisher.publish({ topic: "orders.created", content: { case: "text", value: `order ${n}` } });
  response.catch((error) => console.error(`order ${n} was refused: ${error.message}`));
}
await publisher.close();
client.close();
