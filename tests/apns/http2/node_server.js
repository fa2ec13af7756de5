// An HTTP/2 server on Node's http2 (which is nghttp2), without TLS. The path of a request says what becomes of it.
// One JSON line on stdout when it listens, and one for each request that it acted on.
'use strict'
const http2 = require('node:http2')

const { NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL, NGHTTP2_NO_ERROR } = http2.constants
const settings = JSON.parse(process.argv[2] || '{}')
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

const server = http2.createServer({ settings, peerMaxConcurrentStreams: 100 })
let last = Infinity
server.on('session', (session) => {
  session.on('error', () => {})
})
server.on('stream', (stream, headers) => {
  stream.on('error', () => {})
  const [, what, value] = headers[':path'].split('/')
  if (what === 'refuse') return stream.close(NGHTTP2_REFUSED_STREAM)
  if (stream.id > last) return // as GOAWAY promised; Node hands on what came with it
  if (what === 'goaway') {
    last = stream.id
    stream.session.goaway(NGHTTP2_NO_ERROR, last)
  }
  if (what === 'early') {
    say({ processed: stream.id, size: -1 })
    return stream.respond({ ':status': 413 }, { endStream: true })
  }
  let size = 0
  stream.on('data', (chunk) => { size += chunk.length })
  stream.on('end', () => {
    say({ processed: stream.id, size })
    if (what === 'cancel') return stream.close(NGHTTP2_CANCEL)
    if (what === 'vanish') return stream.session.socket.destroy()
    stream.respond({ ':status': 200, 'apns-id': '1-2-3', 'x-long': 'v'.repeat(what === 'long' ? Number(value) : 1) }, {
      waitForTrailers: what === 'trailers',
    })
    stream.on('wantTrailers', () => stream.sendTrailers({ checksum: '0' }))
    stream.end(Buffer.alloc(what === 'body' ? Number(value) : 0, 'b'))
  })
})
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }))
process.stdin.on('end', () => process.exit(0)).resume()
