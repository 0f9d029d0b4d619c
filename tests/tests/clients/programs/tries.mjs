// What the programs for Node share; it follows the text of cachenat endpoints and precedes a program of its own.
import { createInterface } from "node:readline";
import process from "node:process";

const keys = Array.from({ length: 300 }, (_, number) => `${process.argv[2]}:${number}`);

// Retries for the given number of seconds.
async function settled(act) {
  const end = Date.now() + 1000 * Number(process.argv[3]);
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function writeAndRead(client, value) {
  for (const key of keys) await settled(() => client.set(key, value));
  for (const key of keys) {
    const found = String(await settled(() => client.get(key)));
    if (found !== value) throw new Error(`${key} is ${found}`);
  }
}

async function readFromReplicas(reader, value) {
  for (const key of keys) {
    const end = Date.now() + 5000;
    while (String(await reader.get(key)) !== value) {
      if (Date.now() > end) throw new Error(`${key} never came to a replica`);
    }
  }
}

async function tell(client, reader) {
  await writeAndRead(client, "before");
  await readFromReplicas(reader, "before");
  console.log("before");
  for await (const line of createInterface({ input: process.stdin })) {
    await writeAndRead(client, "after");
    console.log("after", line);
    break;
  }
  process.exit(0);
}
