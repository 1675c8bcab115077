// Prints messages. When it is killed and started again, it continues after the last message that it has printed.
import { FileStore, connect } from "perennial-client/node";

const client = connect();
const request = { topics: ["demo.>"], start: { case: "earliest", value: true } };
for await (const { sequence, topic, content } of client.messages(request, { store: new FileStore("messages.state") })) {
  console.log(sequence, topic, content.value);
}
