// The schema: the repository's .proto, read at run time by protobufjs; nothing is generated.
'use strict';

const path = require('node:path');
const protobuf = require('protobufjs');

const PROTO = path.join(__dirname, '..', '..', '..', 'proto', 'streampush', 'v1', 'streampush.proto');
const root = new protobuf.Root().loadSync(PROTO, { keepCase: true });
const Envelope = root.lookupType('streampush.v1.Envelope');

// Numbers by name, for instance `enumeration('Code').CODE_DRAINING`.
function enumeration(name) {
  return root.lookupEnum(`streampush.v1.${name}`).values;
}

// The bytes of an Envelope given as a plain object, in the form of section 14 or with numbers, Buffers and BigInts in it.
function encodeEnvelope(plain) {
  return Buffer.from(Envelope.encode(Envelope.fromObject(withoutBigInts(plain))).finish());
}

// protobufjs takes 64-bit integers as decimal strings, and knows no BigInt.
function withoutBigInts(value) {
  if (typeof value === 'bigint') return value.toString();
  if (Array.isArray(value)) return value.map(withoutBigInts);
  if (value === null || typeof value !== 'object' || Buffer.isBuffer(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withoutBigInts(inner)]));
}

// For the client: {id, kind, message}. `kind` is the name of the member of `body`, or null for an unknown message. Fields that are
// absent have their default; enumerations are numbers, an unknown one is 0 except for a Code (section 5.4); 64-bit integers are
// BigInts. Throws if the bytes are no Envelope.
function decodeEnvelope(bytes) {
  const envelope = Envelope.decode(bytes);
  const kind = envelope.body || null;
  return {
    id: BigInt(envelope.id.toString()),
    kind,
    message: kind === null ? null : friendly(Envelope.fields[kind].resolvedType, envelope[kind]),
  };
}

function friendly(type, message) {
  return Object.fromEntries(type.fieldsArray.map((field) => [field.name, friendlyField(field, message[field.name])]));
}

function friendlyField(field, value) {
  if (field.map) return { ...value };
  if (field.repeated) return Array.from(value || [], (item) => friendlyValue(field, item));
  return friendlyValue(field, value);
}

function friendlyValue(field, value) {
  const type = field.resolvedType;
  if (type instanceof protobuf.Type) return value ? friendly(type, value) : null;
  if (type instanceof protobuf.Enum) return type.name === 'Code' || type.valuesById[value] !== undefined ? value : 0;
  if (field.type === 'uint64') return BigInt(value.toString());
  if (field.type === 'bytes') return Buffer.from(value);
  return value;
}

// The protobuf JSON form of section 14: proto names, 64-bit integers as strings, base64, enumerations by name, no defaults.
function toJson(bytes) {
  return jsonOf(Envelope, Envelope.decode(bytes));
}

function jsonOf(type, message) {
  const plain = {};
  for (const field of type.fieldsArray) {
    if (!Object.hasOwn(message, field.name)) continue;
    const value = jsonOfField(field, message[field.name]);
    if (value !== undefined) plain[field.name] = value;
  }
  return plain;
}

function jsonOfField(field, value) {
  if (field.map) return Object.keys(value).length ? { ...value } : undefined;
  if (field.repeated) return value.length ? value.map((item) => jsonOfValue(field, item)) : undefined;
  if (field.resolvedType instanceof protobuf.Type) return jsonOf(field.resolvedType, value);
  return isDefault(field, value) ? undefined : jsonOfValue(field, value);
}

function isDefault(field, value) {
  if (field.type === 'string' || field.type === 'bytes') return value.length === 0;
  return Number(value) === 0; // integers, Longs, enumerations, booleans
}

function jsonOfValue(field, value) {
  const type = field.resolvedType;
  if (type instanceof protobuf.Type) return jsonOf(type, value);
  if (type instanceof protobuf.Enum) return type.valuesById[value] ?? value;
  if (field.type === 'uint64') return value.toString();
  if (field.type === 'bytes') return Buffer.from(value).toString('base64');
  return value;
}

module.exports = { decodeEnvelope, encodeEnvelope, enumeration, toJson };
