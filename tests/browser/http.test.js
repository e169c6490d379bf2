/** Files over HTTP, from hosts that break off, stall, are busy or refuse: what arrives is the file or an error, never a mixture. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HttpFile, fetchFile, readFile } from "../../js/http.js";

const URL = "https://host.test/weights.safetensors";
/** A file, and another one of the same length whose second half differs. */
const FILE = Uint8Array.from({ length: 1000 }, (_, at) => (at * 7) & 255);
const OTHER = FILE.map((byte, at) => (at < 500 ? byte : byte ^ 1));

/**
 * How a host answers: with which bytes of the file, up to where, under which headers.
 * @typedef {object} Answer
 * @property {number} [status]
 * @property {Record<string, string>} [headers]
 * @property {Uint8Array} [bytes]  the file's; FILE unless told
 * @property {number} [end]  where the connection breaks
 * @property {number} [silent]  where it says nothing more
 * @property {boolean} [ranges]  whether it knows `Range`; unless told otherwise
 * @property {boolean} [mute]  whether it does not answer at all
 * @property {string} [range]  its Content-Range, if not the right one
 */

/**
 * Runs `body` with a host that gives these answers one after the other, and the last one ever after; timers need no time.
 * @param {import("node:test").TestContext} context @param {Answer[]} answers
 * @param {() => Promise<any>} body
 * @returns {Promise<{ value?: any, error?: any, requests: (string | null)[], seconds: number }>} `requests`: their ranges
 */
async function hosted(context, answers, body) {
  /** @type {(string | null)[]} */
  const requests = [];
  context.mock.method(
    globalThis,
    "fetch",
    (/** @type {string} */ _url, /** @type {RequestInit} */ { signal, headers }) => {
      const range = new Headers(headers).get("range");
      const answer = answers[Math.min(requests.length, answers.length - 1)];
      requests.push(range);
      return new Promise((resolve, reject) => {
        signal?.addEventListener("abort", () => reject(signal.reason));
        if (!answer.mute) resolve(respond(answer, range, signal ?? undefined));
      });
    },
  );
  context.mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.UTC(2026, 0, 1) });
  /** @type {any} */
  let outcome;
  body().then(
    (value) => (outcome = { value }),
    (error) => (outcome = { error }),
  );
  let seconds = 0;
  for (; !outcome; seconds += 0.25) {
    for (let turn = 0; turn < 20 && !outcome; turn++) await new Promise((resolve) => setImmediate(resolve));
    if (!outcome) context.mock.timers.tick(250);
    assert.ok(seconds < 1000, "it never settles");
  }
  context.mock.timers.reset();
  context.mock.restoreAll();
  return { ...outcome, requests, seconds };
}

/** @param {Answer} answer @param {string | null} range @param {AbortSignal} [signal] */
function respond(answer, range, signal) {
  const { status = 200, headers, bytes = FILE, end = bytes.length, silent, ranges = true } = answer;
  let isSent = false;
  const from = ranges && range ? Number(range.slice("bytes=".length, -1)) : 0;
  const part = bytes.slice(from, Math.max(from, silent ?? end));
  const stream = new ReadableStream(
    {
      start: (controller) => signal?.addEventListener("abort", () => controller.error(signal.reason)),
      pull(controller) {
        if (!isSent && part.length > 0) controller.enqueue(part);
        else if (end < bytes.length) controller.error(new TypeError("network error"));
        else if (silent === undefined) controller.close();
        isSent = true;
      },
    },
    { highWaterMark: 0 },
  );
  const isPart = ranges && range && status === 200;
  const response = new Response(status === 204 ? null : stream, {
    status: isPart ? 206 : status,
    headers: {
      "content-length": String(bytes.length - from),
      ...(isPart && { "content-range": answer.range ?? `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
      ...headers,
    },
  });
  Object.defineProperty(response, "type", { value: "basic" });
  return response;
}

const read = async () => new Uint8Array(await (await readFile(URL, "weights.safetensors", {})).arrayBuffer());

const STRONG = { etag: '"1"' };
const WEAK = { etag: 'W/"1"' };
const DATED = { "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT" };
const DATED_LATER = { "last-modified": "Fri, 02 Jan 2026 00:00:00 GMT" };

test("a broken connection goes on where it broke if the host says that the file is the same", async (context) => {
  for (const headers of [STRONG, DATED, { ...WEAK, ...DATED }]) {
    const { value, error, requests } = await hosted(context, [{ headers, end: 700 }, { headers }], read);
    assert.deepEqual([error, value], [undefined, FILE], JSON.stringify(headers));
    assert.deepEqual(requests, [null, "bytes=700-"]);
  }
});

test("where there is no telling, the file is fetched again and what is there is compared", async (context) => {
  /** @type {[what: string, first: Answer, later: Answer][]} */
  const cases = [
    ["no ETag and no date", {}, {}],
    ["a weak ETag alone", { headers: WEAK }, { headers: WEAK }],
    ["a weak ETag that changes, as one of the address does", { headers: WEAK }, { headers: { etag: 'W/"2"' } }],
    ["no ranges", { headers: STRONG, ranges: false }, { headers: STRONG, ranges: false }],
    ["another part than was asked for", { headers: STRONG }, { headers: STRONG, range: "bytes 0-999/1000" }],
    ["a part without a range", { headers: STRONG }, { headers: STRONG, range: "" }],
    ["compressed", { headers: { ...STRONG, "content-length": "300" } }, { headers: STRONG }],
    ["no length", { headers: { "content-length": "" } }, {}],
  ];
  for (const [what, first, later] of cases) {
    const whole = { ...later, range: undefined, ranges: false };
    const { value, error } = await hosted(context, [{ ...first, end: 700 }, later, whole], read);
    assert.deepEqual([error, value], [undefined, FILE], what);
  }
});

test("another file is never taken for the rest, whatever the host says of it", async (context) => {
  /** @type {[what: string, first: Answer, later: Answer][]} */
  const cases = [
    ["no ETag and no date", {}, {}],
    ["a weak ETag alone", { headers: WEAK }, { headers: WEAK }],
    ["an ETag that is no longer sent", { headers: STRONG }, {}],
    ["an ETag that was not sent before", {}, { headers: STRONG }],
    ["another ETag", { headers: STRONG }, { headers: { etag: '"2"' } }],
    ["an ETag that has become weak", { headers: STRONG }, { headers: WEAK }],
    ["another date", { headers: DATED }, { headers: DATED_LATER }],
    [
      "the same date with another weak ETag",
      { headers: { ...DATED, ...WEAK } },
      { headers: { ...DATED, etag: 'W/"2"' } },
    ],
    ["a date that is no longer sent", { headers: DATED }, {}],
    ["no ranges and no ETag", { ranges: false }, { ranges: false }],
    ["another length", { headers: STRONG }, { headers: { etag: '"2"' }, bytes: OTHER.slice(0, 900) }],
    ["a shorter one than what is there", {}, { bytes: OTHER.slice(0, 600) }],
  ];
  for (const [what, first, later] of cases) {
    const { value, error } = await hosted(
      context,
      [
        { ...first, end: 700 },
        { bytes: OTHER, ...later },
      ],
      read,
    );
    assert.deepEqual([value, error?.code], [undefined, "network"], what);
    assert.match(error.message, /broke after 700 bytes and could not be resumed: .*the same file/, what);
  }
});

test("a connection may break any number of times while bytes arrive, and a few times without", async (context) => {
  for (const headers of [STRONG, {}]) {
    const cuts = [100, 200, 300, 400, 500, 600, 700, 800, 900].map((end) => ({ headers, end }));
    const { value } = await hosted(context, [...cuts, { headers }], read);
    assert.deepEqual(value, FILE);
    const { error, requests } = await hosted(context, [{ headers, end: 100 }], read);
    assert.match(error.message, /broke after 100 bytes and could not be resumed: it broke again each time/);
    assert.equal(requests.length, 4);
  }
});

test("a connection that brings nothing for half a minute is broken, and the file goes on", async (context) => {
  for (const headers of [STRONG, {}]) {
    const { value, error, seconds } = await hosted(context, [{ headers, silent: 300 }, { headers }], read);
    assert.deepEqual([error, value], [undefined, FILE]);
    assert.ok(seconds >= 30 && seconds < 32, `${seconds} s`);
    /** @type {string[]} */
    const reasons = [];
    const onWait = (/** @type {string} */ reason) => reasons.push(reason);
    const never = await hosted(context, [{ headers, silent: 300 }], () => readFile(URL, "weights", { onWait }));
    assert.match(never.error.message, /broke after 300 bytes .*: nothing came for 30 seconds/);
    assert.equal(never.error.code, "network");
    assert.ok(never.seconds < 90, `${never.seconds} s`);
    assert.match(reasons[0], /nothing came for 30 seconds/);
  }
});

test("a host that does not answer is asked twice, and an abort ends the waiting at once", async (context) => {
  const mute = await hosted(context, [{ mute: true }], () => fetchFile(URL, "a", {}));
  assert.match(mute.error.message, /could not be fetched: nothing came for 30 seconds/);
  assert.equal(mute.requests.length, 2);
  const late = await hosted(context, [{ mute: true }, {}], read);
  assert.deepEqual(late.value, FILE);
  for (const answer of [{ mute: true }, { silent: 10 }, { status: 503, headers: { "retry-after": "50" } }]) {
    const controller = new AbortController();
    const { error, seconds } = await hosted(context, [answer], () => {
      setTimeout(() => controller.abort("enough"), 2000);
      return readFile(URL, "a", { signal: controller.signal });
    });
    assert.deepEqual([error.code, error.cause], ["aborted", "enough"]);
    assert.ok(seconds < 3, `${seconds} s`);
  }
  // Also one that comes just before the waiting.
  for (const answer of [{ status: 503, headers: { "retry-after": "50" } }, { end: 10 }]) {
    const controller = new AbortController();
    const onWait = () => controller.abort("enough");
    const { error, seconds, requests } = await hosted(context, [answer], () =>
      readFile(URL, "a", { signal: controller.signal, onWait }),
    );
    assert.deepEqual([error.code, error.cause, requests.length], ["aborted", "enough", 1]);
    assert.ok(seconds < 1, `${seconds} s`);
  }
});

test("a busy host is asked again when it says, or after longer and longer pauses", async (context) => {
  /** @type {[headers: Record<string, string>, least: number, most: number][]} */
  const pauses = [
    [{}, 0.25, 1],
    [{ "retry-after": "7" }, 7, 8],
    [{ "retry-after": "0" }, 0.25, 1],
    [{ "retry-after": "soon" }, 0.25, 1],
    [{ "retry-after": "Thu, 01 Jan 2026 00:00:09 GMT" }, 9, 10],
    // By the host's clock, which may be wrong.
    [{ "retry-after": "Thu, 01 Jan 2026 05:00:09 GMT", date: "Thu, 01 Jan 2026 05:00:00 GMT" }, 9, 10],
    [{ "retry-after": "Thu, 01 Jan 2015 00:00:00 GMT" }, 0.25, 1],
  ];
  for (const status of [408, 429, 500, 502, 503, 504]) {
    for (const [headers, least, most] of pauses) {
      const { value, error, seconds } = await hosted(context, [{ status, headers }, {}], read);
      assert.deepEqual([error, value], [undefined, FILE], `${status}`);
      assert.ok(seconds >= least && seconds <= most, `${status}, ${JSON.stringify(headers)}: ${seconds} s`);
    }
    const { error, requests } = await hosted(context, [{ status }], read);
    assert.deepEqual([error.code, requests.length], ["network", 4]);
    assert.match(error.message, new RegExp(`status ${status}`));
  }
  const headers = { "retry-after": "3600" };
  const long = await hosted(context, [{ status: 429, headers }], read);
  assert.equal(long.requests.length, 1);
  assert.ok(long.seconds < 1, `${long.seconds} s`);
  const later = await hosted(context, [{ headers: STRONG, end: 700 }, { status: 503 }, { headers: STRONG }], read);
  assert.deepEqual(later.value, FILE);
});

test("every refusal says what it is and what to do, and is not repeated", async (context) => {
  /** @type {[answer: Answer, code: string, words: RegExp][]} */
  const refusals = [
    [{ status: 404 }, "file-missing", /does not exist on its server/],
    [{ status: 410 }, "file-missing", /does not exist on its server/],
    [{ status: 401 }, "network", /private.*its licence has to be accepted.*download the files/],
    [{ status: 403 }, "network", /private.*its licence has to be accepted.*download the files/],
    [{ status: 416 }, "network", /status 416/],
    [{ status: 418 }, "network", /status 418/],
    [{ headers: { "content-type": "text/html; charset=utf-8" } }, "file-missing", /is a web page, not the file/],
  ];
  for (const [answer, code, words] of refusals) {
    const { error, requests } = await hosted(context, [answer], read);
    assert.deepEqual([error?.code, error?.file, requests.length], [code, "weights.safetensors", 1]);
    assert.match(error.message, words);
  }
});

test("an error names the address without its query, which may be a signature", async (context) => {
  for (const answer of [{ status: 404 }, { status: 403 }, { mute: true }, { end: 10 }]) {
    const { error } = await hosted(context, [answer], () => readFile(`${URL}?X-Amz-Signature=secret`, "a", {}));
    assert.match(error.message, /^https:..host.test.weights.safetensors[?]…/);
    assert.ok(!error.message.includes("secret"));
  }
});

test("a file that is opened tells its length, unless it is compressed or another site's", async (context) => {
  const length = async () => (await HttpFile.open(URL, "a", {})).length;
  assert.equal((await hosted(context, [{}], length)).value, 1000);
  assert.equal((await hosted(context, [{ headers: { "content-encoding": "gzip" } }], length)).value, undefined);
});
