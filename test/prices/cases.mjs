// SPDX-License-Identifier: MPL-2.0

// Writes what the npm package @pydantic/genai-prices says that completions
// cost, one JSON object a line, the first with the package's version and how
// many lines follow. Every name that a rule of the package spells out is asked
// for, on both sides of every start date, time of day and tier, with random
// usages.
//
//   node cases.mjs <seed>

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

import { calcPrice, waitForUpdate } from '@pydantic/genai-prices'

const entry = createRequire(import.meta.url).resolve('@pydantic/genai-prices')
const { version } = JSON.parse(readFileSync(join(dirname(entry), '../package.json'), 'utf8'))

const USUAL_TIME = '2026-11-23T12:00:00.000Z'

// Kinds of token that exclude each other, as all the units that count them.
const KINDS = [
  ['input'],
  ['input', 'cache_read'],
  ['input', 'cache_write'],
  ['input', 'cache_write', 'cache_write_1h'],
  ['input', 'input_audio'],
  ['input', 'input_audio', 'cache_read', 'cache_audio_read'],
  ['input', 'input_image'],
  ['input', 'input_image', 'cache_read', 'cache_image_read'],
  ['input', 'input_video'],
  ['output'],
  ['output', 'output_reasoning'],
  ['output', 'output_citation'],
  ['output', 'output_audio'],
  ['output', 'output_image'],
  ['output', 'output_video'],
]
const UNITS = [...new Set(KINDS.flat())]

// mulberry32, a small generator of numbers in [0, 1) that can be repeated.
function generator(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const random = generator(Number(process.argv[2]))
const below = (n) => Math.floor(random() * n)

function zeroUsage() {
  return Object.fromEntries(UNITS.map((u) => [u, 0]))
}

function randomUsage() {
  const usage = zeroUsage()
  const most = [10, 2_000, 60_000, 150_000][below(4)]
  for (const units of KINDS) {
    if (below(3) === 0) continue
    const n = below(most)
    for (const u of units) usage[u] += n
  }
  return usage
}

// Names that a rule is meant for.
function namesOf(match) {
  const [[kind, value]] = Object.entries(match)
  if (kind === 'or' || kind === 'and') return value.flatMap(namesOf)
  return kind === 'regex' ? [] : [value]
}

const tariffsOf = (model) => (Array.isArray(model.prices) ? model.prices : [{ prices: model.prices }])

function timesOf(model) {
  const times = new Set([USUAL_TIME])
  const around = (at) => {
    times.add(new Date(at - 1).toISOString())
    times.add(new Date(at).toISOString())
  }
  for (const { constraint } of tariffsOf(model)) {
    if (constraint?.start_date) around(Date.parse(constraint.start_date))
    if (constraint?.start_time) {
      around(Date.parse(`2026-11-23T${constraint.start_time}`))
      around(Date.parse(`2026-11-23T${constraint.end_time}`))
    }
  }
  return times
}

function tierUsagesOf(model) {
  const usages = []
  for (const { prices } of tariffsOf(model)) {
    for (const price of Object.values(prices)) {
      for (const { start } of price.tiers ?? []) {
        for (const input of [start, start + 1]) usages.push({ ...zeroUsage(), input, cache_read: 1_000, output: 777, output_reasoning: 7 })
      }
    }
  }
  return usages
}

const lines = []

function ask(provider, name, at, usage) {
  const reported = Object.fromEntries(Object.entries(usage).map(([u, n]) => [`${u}_tokens`, n]))
  const line = { provider, name, at, usage }
  try {
    const result = calcPrice(reported, name, { providerId: provider, timestamp: new Date(at) })
    if (result) {
      line.model = result.model.id
      line.input = result.input_price
      line.output = result.output_price
      line.total = result.total_price
    }
  } catch (error) {
    line.error = String(error)
  }
  lines.push(JSON.stringify(line))
}

for (const provider of await waitForUpdate()) {
  for (const model of provider.models) {
    const names = new Set([model.id, ...namesOf(model.match)])
    for (const name of names) {
      for (const at of timesOf(model)) ask(provider.id, name, at, randomUsage())
      for (const variant of [name.toUpperCase(), `${name}-20250101`, `${name}-20250230:x`, `vendor/${name}`, name.slice(0, -1)]) {
        ask(provider.id, variant, USUAL_TIME, randomUsage())
      }
    }
    for (const usage of tierUsagesOf(model)) {
      for (const at of timesOf(model)) for (const name of names) ask(provider.id, name, at, usage)
    }
  }
}
console.log(JSON.stringify({ version, cases: lines.length }))
process.stdout.write(lines.map((l) => l + '\n').join(''))
