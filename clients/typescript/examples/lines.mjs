import { connect, lineText } from "perennial-client/node";

const client = connect("127.0.0.1:50051");
for await (const line of client.readLines({ path: "demo/app.log", follow: true })) {
  console.log(lineText(line));
}
