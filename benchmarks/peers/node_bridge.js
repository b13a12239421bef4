// The same bridge on Node's `ws`.
//
//     node node_bridge.js EKA_URL [CERTIFICATE KEY AUTHORITY]       prints its own port
"use strict";

const fs = require("fs");
const http = require("http");
const https = require("https");
const { WebSocket, WebSocketServer } = require("ws");

const [ekaUrl, certificate, key, authority] = process.argv.slice(2);

// ITU-T G.711, table 2a
const MULAW = Int16Array.from({ length: 256 }, (_, code) => {
  const inverted = ~code & 255;
  const magnitude = ((((inverted & 15) << 3) + 132) << ((inverted >> 4) & 7)) - 132;
  return inverted & 128 ? -magnitude : magnitude;
});

function carry(carrier) {
  let eka = null;
  let last = null;
  const early = [];

  function send(message) {
    if (message.event === "stop") {
      eka.send('{"event":"stop"}');
    } else if (message.event === "media") {
      const codes = Buffer.from(message.media.payload, "base64");
      // Between two samples stands their mean; the one behind the last comes with the next frame.
      const pcm = new Int16Array(2 * codes.length - (last === null ? 1 : 0));
      let at = 0;
      for (let i = 0; i < codes.length; i++) {
        const sample = MULAW[codes[i]];
        if (last !== null) pcm[at++] = (last + sample) >> 1;
        pcm[at++] = last = sample;
      }
      eka.send(Buffer.from(pcm.buffer));
    }
  }

  carrier.on("message", (text) => {
    const message = JSON.parse(text);
    if (message.event === "start") {
      const options = { perMessageDeflate: false, ca: authority && fs.readFileSync(authority) };
      const socket = new WebSocket(`${ekaUrl}/${message.start.callId}`, options);
      socket.on("open", () => {
        eka = socket;
        early.forEach(send);
      });
    } else if (eka === null) {
      early.push(message);
    } else {
      send(message);
    }
  });
}

const server = certificate
  ? https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) })
  : http.createServer();
new WebSocketServer({ server, perMessageDeflate: false }).on("connection", carry);
server.listen(0, "127.0.0.1", 4096, () => console.log(server.address().port));
