// Gets what the engine needs and this machine lacks, for `npm run build:tensorflow` only: tfjs-node's JavaScript and C++ sources,
// or the TensorFlow that tfjs-node's own installation downloads. Uses only Node.js.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { firstError } from '../../native/compile.js';
import { spawnNpm } from '../../native/npm.js';

const { FETCHED, findPackage, PACKAGES, wantedVersion } = createRequire(import.meta.url)('./package.cjs');

/** Which TensorFlow tfjs-node 4.22 downloads. */
const DOWNLOADED = 'TensorFlow 2.9.1';

function npm(args, folder) {
  const { status, stdout, stderr, error } = spawnNpm(
    [...args, '--ignore-scripts', '--no-audit', '--no-fund'],
    folder,
  );
  if (status !== 0)
    throw new Error(
      `npm ${args.join(' ')} failed: ${error?.message ?? firstError({ stderr: stderr || stdout }).trim()}; install ${PACKAGES[0]} where there is a network, and run this again`,
    );
  return stdout;
}

/**
 * Fetches tfjs-node from npm's registry into alitok's own folder, with the packages that its JavaScript needs, or with those
 * that its installation needs as well. Its tfjs is alitok's. Returns the package.
 */
export function fetchPackage({ toInstall = false } = {}) {
  const [name] = PACKAGES;
  const version = wantedVersion();
  const partial = `${FETCHED}.partial`;
  const what = toInstall ? 'all packages that it needs' : 'google-protobuf';
  console.log(
    `fetching the package ${name} ${version} and ${what} from npm's registry (${toInstall ? 'a few megabytes' : '0.3 MB'}) to ${FETCHED}`,
  );
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const [{ filename }] = JSON.parse(npm(['pack', `${name}@${version}`, '--json'], partial));
  const archive = filename.replace('@', '').replace('/', '-');
  const { status, stderr } = spawnSync('tar', ['-xzf', archive], { cwd: partial, encoding: 'utf8' });
  if (status !== 0) throw new Error(`tar cannot unpack ${archive}: ${stderr?.trim() ?? 'there is no tar'}`);
  const { dependencies } = JSON.parse(readFileSync(join(partial, 'package/package.json'), 'utf8'));
  const { '@tensorflow/tfjs': _, ...others } = dependencies;
  const needed = toInstall ? others : { 'google-protobuf': dependencies['google-protobuf'] };
  writeFileSync(join(partial, 'package.json'), JSON.stringify({ private: true, dependencies: needed }));
  npm(['install'], partial);
  mkdirSync(join(partial, 'node_modules', dirname(name)), { recursive: true });
  renameSync(join(partial, 'package'), join(partial, 'node_modules', name));
  rmSync(join(partial, archive));
  rmSync(FETCHED, { recursive: true, force: true });
  renameSync(partial, FETCHED);
  return findPackage();
}

/** Whether the packages that tfjs-node's installation script needs are there. */
const canInstall = ({ path }) => {
  try {
    createRequire(join(path, 'x')).resolve('@mapbox/node-pre-gyp/package.json');
    return true;
  } catch {
    return false;
  }
};

/**
 * Runs tfjs-node's own installation script, which downloads a TensorFlow and a binding to it into the package.
 * @throws Error if that fails, with the remedy
 */
export function downloadTensorFlow(found, why) {
  const kind = found.name === PACKAGES[0] ? 'gpu' : 'cpu';
  const what = `${DOWNLOADED} for ${kind === 'gpu' ? 'CUDA 11.2' : 'the CPU'}`;
  console.log(
    `${why}, so ${found.name} downloads its own: ${what}, hundreds of megabytes, which can take minutes`,
  );
  const own = canInstall(found) ? found : fetchPackage({ toInstall: true });
  // The script calls node-pre-gyp by name, and ends successfully whatever comes of that.
  const bin = [join(own.path, '../.bin'), join(own.path, '../../.bin'), process.env.PATH].join(delimiter);
  const { stdout, stderr } = spawnSync(process.execPath, ['scripts/install.js', kind, 'download'], {
    cwd: own.path,
    encoding: 'utf8',
    env: { ...process.env, PATH: bin },
  });
  const [reason = 'it says nothing'] =
    /^\w*Error: .+/m.exec(stderr) ?? /^.*(?:error|failed).*$/im.exec(`${stdout}${stderr}`) ?? [];
  const done = findPackage([own.name]);
  if (done?.downloaded) return done;
  throw new Error(
    `${why}, and ${own.name} could not download its own (${reason.trim()}): pip install tensorflow, then run this again`,
  );
}
