import { connect } from "perennial-client/web";

const client = connect("http://127.0.0.1:50051");
for await (const tick of client.countdown({ target: { case: "name", value: "launch" } })) {
  document.querySelector("#left").textContent = tick.remaining;
}
