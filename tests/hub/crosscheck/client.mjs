// The official JavaScript client against the test hub: node client.mjs HUB TOKEN REPO SHA256 FILE
// Prints one line for each check, and ends with 1 at the first that fails.
import { createHash } from "node:crypto";
import {
  commit, createBranch, createRepo, deleteRepo, downloadFile, fileDownloadInfo, fileExists,
  listFiles, modelInfo, uploadFiles, whoAmI,
} from "@huggingface/hub";

const [hubUrl, accessToken, repo, sha256, file] = process.argv.slice(2);
const own = { hubUrl, accessToken };
const sha = async (blob) =>
  createHash("sha256").update(Buffer.from(await blob.arrayBuffer())).digest("hex");
const say = (what, good) => {
  console.log(`${good ? "ok" : "FAILED"}  javascript: ${what}`);
  if (!good) process.exit(1);
};

say("whoAmI", (await whoAmI(own)).name === "tester");
say("modelInfo", (await modelInfo({ ...own, name: repo })).name === repo);
const files = [];
for await (const row of listFiles({ ...own, repo, recursive: true })) files.push(row);
say("listFiles has the published digest", files.some((row) => row.lfs?.oid === sha256));
const info = await fileDownloadInfo({ ...own, repo, path: file });
say("fileDownloadInfo", info.size > 0);
say("downloadFile of a published file", (await sha(await downloadFile({ ...own, repo, path: file }))) === sha256);
say("downloadFile by tag", (await sha(await downloadFile({ ...own, repo, path: file, revision: "v1" }))) === sha256);

const bytes = new Uint8Array(700_001).map((_, i) => (i * 2654435761) >>> 13);
for (const useXet of [false, true]) {
  const mine = `tester/js-${useXet ? "xet" : "lfs"}`;
  await createRepo({ ...own, repo: mine, private: true });
  await createBranch({ ...own, repo: mine, branch: "side" });
  const content = new Blob([bytes, String(useXet)]);
  await uploadFiles({
    ...own, repo: mine, useXet,
    files: [{ path: "m.gguf", content }, { path: "README.md", content: new Blob(["hello"]) }],
  });
  const back = await downloadFile({ ...own, repo: mine, path: "m.gguf" });
  say(`uploadFiles and downloadFile, useXet: ${useXet}`, (await sha(back)) === (await sha(content)));
  const stale = "0".repeat(40);
  const refused = await commit({
    ...own, repo: mine, title: "stale", parentCommit: stale,
    operations: [{ operation: "delete", path: "README.md" }],
  }).then(() => 0, (error) => error.statusCode);
  say("a commit on a stale parent is refused", refused === 412);
  say("and leaves the file", await fileExists({ ...own, repo: mine, path: "README.md" }));
  await deleteRepo({ ...own, repo: mine });
}
