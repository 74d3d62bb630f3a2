// aedes behind a plain TCP server on loopback: node aedes-server.mjs PORT PATH-OF-AEDES
import { createServer } from 'node:net'

const [port, path] = process.argv.slice(2)
const module = await import(path)
const Aedes = module.Aedes ?? module.default?.Aedes ?? module.default
const options = {
  concurrency: 10000, // the default, 100, makes each message wait for the slowest subscriber
  queueLimit: 1000000,
  maxClientsIdLength: 65535
}
const broker = Aedes.createBroker ? await Aedes.createBroker(options) : new Aedes(options)
const server = createServer({ noDelay: true }, broker.handle)
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 })
