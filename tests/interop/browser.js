// A device that connects as a browser must, with its credential in a subprotocol, publishes one
// message and leaves: node browser.js TOPIC TEXT
const WebSocket = require("ws");
const [topic, text] = process.argv.slice(2);
const bearer = "roost.bearer." + Buffer.from(process.env.ROOST_TOKEN).toString("base64url");
const ws = new WebSocket(process.env.ROOST_URL, ["roost.v1.json", bearer]);
ws.on("open", () => {
  if (ws.protocol !== "roost.v1.json") throw new Error(`the hub chose ${ws.protocol}`);
  ws.send(JSON.stringify({ type: "hello" }));
  ws.send(JSON.stringify({ type: "publish", id: 7, topic, text }));
});
ws.on("message", (data) => {
  const message = JSON.parse(data);
  if (message.type === "error") throw new Error(message.message);
  if (message.type === "ack" && message.id === 7) ws.close(1000, "done");
});
ws.on("close", (code) => process.exit(code === 1000 ? 0 : 1));
