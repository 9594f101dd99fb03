// A Poto server's journal on files, as the design document has it, run by Bun: no lock, no clean-up, one appendFile
// for each append.
//
//   bun poto.ts ROOT USER append WRITER FIRST COUNT   messages one by one, and every seventh time three in a batch
//   bun poto.ts ROOT USER read [ARCHIVE]              its messages as JSON, as they are when it is asked: once for
//                                                     each line on standard input
//   bun poto.ts ROOT USER archive                     archives whenever there is something, until standard input ends
//
// ROOT may be a journal's folder or a mount. Two things differ from the document's text, which does not work as it
// stands: Bun.YAML.stringify ends without a newline, so that one is added before the marker; and Bun.YAML.parse makes a
// null of the empty document behind the last marker.

import { appendFile, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";

type Message = { role: string; content: string; timestamp: string; metadata?: object };

const [root, user, action, ...rest] = process.argv.slice(2);
const dialogs = join(root, "users", encodeURIComponent(user), "dialogs");
const current = join(dialogs, "current.yaml");
const MARKER = "\n---\n";

const document = (message: Message) => Bun.YAML.stringify(message, null, 2) + MARKER;

async function addMessages(messages: Message[]) {
  await appendFile(current, messages.map(document).join(""));
}

async function getConversation(path: string): Promise<Message[]> {
  let content: string;
  try {
    content = await readFile(path, "utf-8");
  } catch (error) {
    if (error.code === "ENOENT") return [];
    throw error;
  }
  // Another's append may be under way: what is behind the last marker is not committed yet.
  content = content.slice(0, content.lastIndexOf(MARKER) + MARKER.length);
  if (!content.trim()) return [];
  const documents = Bun.YAML.parse(content);
  return (Array.isArray(documents) ? documents : [documents]).filter((found) => found !== null);
}

const text = (writer: string, number: number) =>
  `${writer} ${number}\n` + `yes: "${number}" # é😀\n`.repeat(number % 5 ? number % 3 : 500);

const message = (writer: string, number: number): Message => ({
  role: number % 2 ? "assistant" : "user",
  content: text(writer, number),
  timestamp: new Date().toISOString(),
  metadata: { tokens: number },
});

if (action === "append") {
  const [writer, first, count] = [rest[0], Number(rest[1]), Number(rest[2])];
  for (let number = first; number < first + count; ) {
    const batch = number % 7 ? 1 : Math.min(3, first + count - number);
    await addMessages(Array.from({ length: batch }, (_, index) => message(writer, number + index)));
    number += batch;
  }
} else if (action === "read") {
  const path = rest[0] ? join(dialogs, "archived", `${rest[0]}.yaml`) : current;
  for await (const _ of console) {
    console.log(JSON.stringify(await getConversation(path)));
  }
} else if (action === "archive") {
  let ended = false;
  process.stdin.on("end", () => (ended = true)).resume();
  let last = "";
  while (!ended) {
    const name = new Date().toISOString();
    // rename(2) replaces: each name is used once.
    try {
      if (name !== last && (await stat(current)).size) {
        await rename(current, join(dialogs, "archived", `${name}.yaml`));
        last = name;
      }
    } catch (error) {
      if (error.code !== "ENOENT") throw error; // Archived by another server, or there is nothing yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
