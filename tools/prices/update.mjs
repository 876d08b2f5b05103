// SPDX-License-Identifier: MPL-2.0

// Writes the built-in price table, internal/price/prices.json, from the npm
// package @pydantic/genai-prices, in the format that internal/price reads
// (README.md here). A figure, a unit or a match rule that it doesn't know how
// to carry over exactly is an error: somebody then looks.
//
//   npm ci && node update.mjs

import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { waitForUpdate } from '@pydantic/genai-prices'

const here = dirname(fileURLToPath(import.meta.url))
const target = join(here, '../../internal/price')
const packageName = '@pydantic/genai-prices'
const packageRoot = join(dirname(createRequire(import.meta.url).resolve(packageName)), '..')

// The units that a completion's usage reports, by their names in the package.
const UNITS = {
  input_mtok: 'input',
  cache_read_mtok: 'cache_read',
  cache_write_mtok: 'cache_write',
  cache_write_1h_mtok: 'cache_write_1h',
  input_audio_mtok: 'input_audio',
  cache_audio_read_mtok: 'cache_audio_read',
  input_image_mtok: 'input_image',
  cache_image_read_mtok: 'cache_image_read',
  input_video_mtok: 'input_video',
  output_mtok: 'output',
  output_reasoning_mtok: 'output_reasoning',
  output_citation_mtok: 'output_citation',
  output_audio_mtok: 'output_audio',
  output_image_mtok: 'output_image',
  output_video_mtok: 'output_video',
  requests_kcount: 'requests',
}

// What is charged beside tokens and requests. The plugin can't meter it, so the
// table says that it is there.
const UNMETERED = {
  audio_hours: 'audio_duration',
  input_audio_hours: 'input_audio_duration',
  input_annotated_document_kpages: 'annotated_document_pages',
  input_document_kpages: 'document_pages',
  input_text_messages_kcount: 'text_messages',
  storage_searches_kcount: 'storage_searches',
  web_searches_kcount: 'web_searches',
}

// Figures finer than a nano-USD per million tokens, each looked at once, with
// what stands in the table instead: 1/12 USD, rounded up, and the binary noise
// of 0.18.
const ROUNDED = new Map([
  ['0.08333333333333334', 83_333_334],
  ['0.18000000000000002', 180_000_000],
])

// nano turns a decimal figure in USD into nano-USD, exactly. perMillion is
// false for prices per thousand, which become prices for one.
function nano(usd, perMillion, where) {
  const text = String(usd)
  if (perMillion && ROUNDED.has(text)) return ROUNDED.get(text)
  const m = /^(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(text)
  if (!m) throw new Error(`${where}: ${text} is no price`)
  const [, whole, fraction = '', exponent = '0'] = m
  const shift = (perMillion ? 9 : 6) - fraction.length + Number(exponent)
  let n = BigInt(whole + fraction)
  if (shift >= 0) n *= 10n ** BigInt(shift)
  else {
    const divisor = 10n ** BigInt(-shift)
    if (n % divisor) throw new Error(`${where}: ${text} USD is no whole number of nano-USD; see ROUNDED`)
    n /= divisor
  }
  if (n > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`${where}: ${text} USD is too much to be true`)
  return Number(n)
}

function rate(value, perMillion, where) {
  if (typeof value === 'number') return nano(value, perMillion, where)
  const tiers = [...value.tiers].sort((a, b) => a.start - b.start)
  if (!tiers.length) return nano(value.base, perMillion, where)
  return {
    base: nano(value.base, perMillion, where),
    above: tiers.map((t) => [t.start, nano(t.price, perMillion, where)]),
  }
}

function tariff({ constraint, prices }, where) {
  const out = {}
  if (constraint?.type === 'start_date') out.since = constraint.start_date
  else if (constraint?.type === 'time_of_date') out.daily = [constraint.start_time, constraint.end_time]
  else if (constraint) throw new Error(`${where}: unknown condition ${JSON.stringify(constraint)}`)
  const rates = {}
  const unmetered = []
  for (const [key, value] of Object.entries(prices)) {
    if (value === undefined) continue
    if (UNITS[key]) rates[UNITS[key]] = rate(value, key !== 'requests_kcount', `${where} ${key}`)
    else if (UNMETERED[key]) unmetered.push(UNMETERED[key])
    else throw new Error(`${where}: unknown unit ${key}; add it to UNITS or UNMETERED`)
  }
  const order = Object.values(UNITS)
  const sorted = Object.entries(rates).sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]))
  if (sorted.length) out.rates = Object.fromEntries(sorted)
  if (unmetered.length) out.unmetered = unmetered.sort()
  return out
}

// Names are compared without regard to case, so all text is lower case here. A
// regular expression is tried on the lower-cased name as it stands.
function rule(match, where) {
  const [[kind, value], ...more] = Object.entries(match)
  if (more.length) throw new Error(`${where}: unknown rule ${JSON.stringify(match)}`)
  switch (kind) {
    case 'equals':
      return value.toLowerCase()
    case 'starts_with':
    case 'ends_with':
    case 'contains':
      return { [kind]: value.toLowerCase() }
    case 'regex':
      return regex(value, where)
    case 'or':
      return { any: value.map((m) => rule(m, where)) }
    case 'and':
      return { all: value.map((m) => rule(m, where)) }
  }
  throw new Error(`${where}: unknown rule ${kind}`)
}

// Go's regular expressions have no look-around. The one use of it, "this
// doesn't occur", is a rule of its own here.
function regex(value, where) {
  const absent = /^\^\(\?!\.\*(.*)\)$/.exec(value)
  const pattern = absent ? absent[1] : value
  if (/\(\?[=!<]|\\[1-9]/.test(pattern)) throw new Error(`${where}: regular expression ${value} can't be carried over`)
  return absent ? { not: { regex: pattern } } : { regex: pattern }
}

// anyOf gives the rule as a list of which one must hold.
function anyOf(match, where) {
  const flat = (r) => (r.any ? r.any.flatMap(flat) : [r])
  return [...new Set(flat(rule(match, where)))]
}

function model(provider, m) {
  const where = `${provider.id}/${m.id}`
  const list = Array.isArray(m.prices) ? m.prices : [{ prices: m.prices }]
  const tariffs = list.map((c) => tariff(c, where))
  // OpenRouter's ":free" variants cost nothing, by name; the package has no
  // figure for them. Any other entry without a figure stays without: unpriced
  // isn't free.
  if (provider.id === 'openrouter' && m.id.endsWith(':free') && tariffs.length === 1 && !tariffs[0].rates) {
    tariffs[0].rates = { input: 0, output: 0 }
  }
  const out = { id: m.id, match: anyOf(m.match, where) }
  if (m.context_window) out.context_window = m.context_window
  out.tariffs = tariffs
  return out
}

// One line for a model keeps differences between two versions readable.
function render(table) {
  const { providers, ...head } = table
  const lines = [JSON.stringify(head, null, 2).replace(/\n}$/, ',\n  "providers": [')]
  providers.forEach((p, i) => {
    const { models, ...rest } = p
    lines.push(`    ${JSON.stringify(rest).slice(0, -1)},"models":[`)
    models.forEach((m, j) => lines.push(`      ${JSON.stringify(m)}${j < models.length - 1 ? ',' : ''}`))
    lines.push(`    ]}${i < providers.length - 1 ? ',' : ''}`)
  })
  lines.push('  ]', '}', '')
  return lines.join('\n')
}

const { version, license } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'))
if (license !== 'MIT') throw new Error(`the package's licence is now ${license}: look before using it`)
const copyright = /^Copyright .*$/m.exec(readFileSync(join(packageRoot, 'LICENSE'), 'utf8'))?.[0].trim()
if (!copyright) throw new Error("the package's LICENSE has no copyright line: look before using it")
const times = JSON.parse(execFileSync('npm', ['view', packageName, 'time', '--json'], { encoding: 'utf8' }))
if (!times[version]) throw new Error(`npm doesn't say when ${packageName} ${version} was published`)

const source = await waitForUpdate()
if (!source?.length) throw new Error('the package gives no providers')
const providers = source.map((p) => {
  const out = { id: p.id, name: p.name }
  if (p.fallback_model_providers?.length) out.fallback = p.fallback_model_providers
  out.models = p.models.map((m) => model(p, m))
  return out
})
const table = {
  source: `npm ${packageName}`,
  version,
  date: times[version].slice(0, 10),
  license: `MIT, ${copyright}; the text is in PRICES-LICENSE`,
  unit: 'nano-USD per million tokens; "requests": nano-USD per request',
  providers,
}
writeFileSync(join(target, 'prices.json'), render(table))
copyFileSync(join(packageRoot, 'LICENSE'), join(target, 'PRICES-LICENSE'))
console.log(`${packageName} ${version} (${table.date}): ${providers.length} providers, ${providers.reduce((n, p) => n + p.models.length, 0)} models`)
