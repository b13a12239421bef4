// A bridge that nobody of mediaflow wrote, on the ws library: a carrier's media WebSocket in, PCM at 16 kHz out.
// usage: node bridge_node.js ws://WHERE-TO [FAULT...]        prints {"port": …} once it listens
//
// Without a fault it does what its author thought of: both shapes of start, both tracks mixed as they come, µ-law and
// little-endian L16, calls named by their id.  It does not look at the carrier's stamps, and at no byte order.
//
// drops_tail       sends whole blocks of 170 ms, and forgets the last one that is not full
// needs_start      throws away what comes before start
// big_endian       believes RFC 3551: L16 in network byte order
// one_track        forgets outbound
// restarts         takes every socket for a call of its own
// in_turns         sends the frames of both tracks one after the other
// a_law            takes µ-law for A-law
// undecoded        takes the bytes of µ-law for L16
// no_resampling    sends 8 kHz where 16 kHz are expected
// sends_big_endian turns the bytes of what it sends
// waits_for_stop   does not end a call at a close
// after_stop       reads on behind stop

const WebSocket = require('ws');

const [target, ...faults] = process.argv.slice(2);
const has = (fault) => faults.includes(fault);
const LINGER_MS = 300; // for the carrier to come back

const MULAW = Int16Array.from({ length: 256 }, (_, code) => {
  const bits = ~code & 0xff;
  const size = ((((bits & 0x0f) << 3) + 0x84) << ((bits & 0x70) >> 4)) - 0x84;
  return bits & 0x80 ? -size : size;
});
const ALAW = Int16Array.from({ length: 256 }, (_, code) => {
  const bits = code ^ 0x55;
  const exponent = (bits & 0x70) >> 4;
  const mantissa = ((bits & 0x0f) << 4) + 8;
  const size = exponent ? (mantissa + 0x100) << (exponent - 1) : mantissa;
  return bits & 0x80 ? size : -size;
});

function decode(bytes, encoding) {
  if (/mulaw/.test(encoding) && !has('undecoded')) return Array.from(bytes, (code) => (has('a_law') ? ALAW : MULAW)[code]);
  const samples = [];
  for (let at = 0; at + 1 < bytes.length; at += 2) {
    samples.push(has('big_endian') ? bytes.readInt16BE(at) : bytes.readInt16LE(at));
  }
  return samples;
}

class Call {
  constructor() {
    this.out = new WebSocket(target);
    this.opened = new Promise((resolve) => this.out.on('open', resolve));
    this.format = null;
    this.early = [];
    this.queues = {};
    this.last = 0;
    this.unsent = [];
    this.over = false;
  }

  start(message) {
    if (this.format) return;
    const inner = message.start || message;
    const media = inner.mediaFormat || {};
    const type = media.encoding || inner.contentType || '';
    const rate = Number(media.sampleRate || (/rate=(\d+)/.exec(type) || [0, 8000])[1]);
    let tracks = inner.tracks || [inner.audioTrack || 'inbound'];
    if (tracks.includes('both')) tracks = ['inbound', 'outbound'];
    if (has('one_track')) tracks = ['inbound'];
    this.format = { type, rate };
    for (const track of tracks) this.queues[track] = [];
    if (!has('needs_start')) this.early.forEach((media) => this.media(media));
    this.early = [];
  }

  media(media) {
    if (this.over && !has('after_stop')) return;
    if (!this.format) {
      this.early.push(media);
      return;
    }
    const queue = this.queues[media.track || 'inbound'];
    if (!queue) return;
    for (const sample of decode(Buffer.from(media.payload, 'base64'), this.format.type)) queue.push(sample);
    if (has('in_turns')) this.send(queue.splice(0));
    else this.mix(false);
  }

  mix(all) {
    const queues = Object.values(this.queues);
    if (!queues.length) return;
    const lengths = queues.map((queue) => queue.length);
    const count = all ? Math.max(...lengths) : Math.min(...lengths);
    const parts = queues.map((queue) => queue.splice(0, count));
    const mixed = [];
    for (let at = 0; at < count; at++) {
      const sum = parts.reduce((total, part) => total + (part[at] || 0), 0);
      mixed.push(Math.max(-32768, Math.min(32767, sum)));
    }
    this.send(mixed);
  }

  send(samples) {
    const wide = [];
    for (const sample of samples) {
      if (this.format.rate === 8000 && !has('no_resampling')) wide.push((this.last + sample) >> 1);
      wide.push(sample);
      this.last = sample;
    }
    this.unsent.push(...wide);
    const block = has('drops_tail') ? 2720 : 1;
    const count = this.unsent.length - (this.unsent.length % block);
    const bytes = Buffer.alloc(count * 2);
    this.unsent.splice(0, count).forEach((sample, at) => {
      if (has('sends_big_endian')) bytes.writeInt16BE(sample, at * 2);
      else bytes.writeInt16LE(sample, at * 2);
    });
    if (count) this.opened.then(() => this.out.send(bytes));
  }

  end() {
    if (this.over) return;
    this.over = true;
    if (this.format) this.mix(true);
    if (!has('after_stop')) this.opened.then(() => this.out.close(1000));
    else setTimeout(() => this.out.close(1000), LINGER_MS);
  }
}

const calls = new Map();
const server = new WebSocket.Server({ host: '127.0.0.1', port: 0 });
server.on('listening', () => console.log(JSON.stringify({ port: server.address().port })));

server.on('connection', (socket) => {
  let call = null;
  const early = [];
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.event === 'start' && !call) {
      const id = (message.start || message).callId;
      if (!id) return;
      if (has('restarts') || !calls.has(id)) calls.set(id, new Call());
      call = calls.get(id);
      clearTimeout(call.leaving);
      call.early.push(...early);
      call.start(message);
    } else if (message.event === 'media' && call) call.media(message.media);
    else if (message.event === 'media') early.push(message.media);
    else if (message.event === 'stop' && call) call.end();
  });
  socket.on('close', () => {
    if (call && !has('waits_for_stop')) call.leaving = setTimeout(() => call.end(), has('restarts') ? 0 : LINGER_MS);
  });
});
