// Take one call as the carrier's documentation shows it in Node, on the ws library, and say in JSON lines what came.

const crypto = require('crypto');
const WebSocket = require('ws');

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const server = new WebSocket.Server({ host: '127.0.0.1', port: 0 });

server.on('listening', () => say({ heard: 'listening', port: server.address().port }));

server.on('connection', (socket) => {
  const audio = crypto.createHash('sha256');
  socket.on('message', (message) => {
    const data = JSON.parse(message);
    if (data.event === 'start') {
      say({ heard: 'start', streamId: data.streamId, from: data.from, to: data.to, whole: data });
    } else if (data.event === 'media') {
      const bytes = Buffer.from(data.media.payload, 'base64');
      audio.update(bytes);
      say({ heard: 'media', bytes: bytes.length });
    } else if (data.event === 'stop') {
      say({ heard: 'stop', reason: data.reason });
    }
  });
  socket.on('close', (code) => {
    say({ heard: 'close', code, audio: audio.digest('hex') });
    server.close();
  });
});
