// A client of EkaScribe's stream as its documents show it, with Node's `ws` in the place of a browser's WebSocket.
// usage: node eka_browser.mjs URL raw|json < pcm        prints {"code": close code of the server}
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const [url, mode] = process.argv.slice(2);
const pcm = readFileSync(0);
const ws = new WebSocket(url);
ws.binaryType = "arraybuffer";

const chunks = [];
for (let start = 0; start < pcm.length; start += 3200) chunks.push(pcm.subarray(start, start + 3200));

ws.onopen = () => {
  if (mode === "json") {
    const mediaFormat = { encoding: "audio/x-l16", sampleRate: 16000 };
    ws.send(JSON.stringify({ event: "start", start: { mediaFormat } }));
  }
  for (const chunk of chunks) {
    if (mode === "raw") ws.send(chunk);
    else ws.send(JSON.stringify({ event: "media", media: { payload: chunk.toString("base64") } }));
  }
  ws.send(JSON.stringify({ event: "stop" }));
};
ws.onclose = (event) => console.log(JSON.stringify({ code: event.code }));
ws.onerror = (event) => {
  console.error(event.message);
  process.exitCode = 1;
};
