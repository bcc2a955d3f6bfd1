import { spawnSync } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A fake compiler: it logs each source and copies it, and rejects sources that contain `error`. It links the last object. */
const COMPILER = `#!/bin/sh
source=; object=
while [ $# -gt 0 ]; do
  case $1 in
    --version) exit ;;
    *.o | *.cc) source=$1 ;;
    -c) source=$2; shift ;;
    -o) object=$2; shift ;;
  esac
  shift
done
if grep -q error "$source"; then echo "$source: error: no" >&2; exit 1; fi
basename "$source" >> "$(dirname "$0")/compiled"
cp "$source" "$object"
`;

/** The engines that are built, with the variable that names the library of each. */
const VARIABLES = { libtorch: 'LIBTORCH', tensorflow: 'TENSORFLOW' };
export type NativeEngine = keyof typeof VARIABLES;

const nativeOf = (engine: NativeEngine) => `src/engine/${engine}/native`;

/** A folder for the build scripts of an engine, with a fake compiler and fake headers of Node.js. */
export class NativeProject {
  private constructor(
    readonly folder: string,
    private readonly engine: NativeEngine,
  ) {}

  static async create(engine: NativeEngine = 'libtorch'): Promise<NativeProject> {
    const project = new NativeProject(await mkdtemp(join(tmpdir(), 'native-')), engine);
    await project.script('compiler', COMPILER);
    return project;
  }

  remove = () => rm(this.folder, { recursive: true });

  at = (name: string) => join(this.folder, name);

  /** Writes small files and creates their folders. */
  files = async (contents: Record<string, string>) => {
    for (const [name, content] of Object.entries(contents)) {
      await mkdir(dirname(this.at(name)), { recursive: true });
      await writeFile(this.at(name), content);
    }
  };

  /** Writes an executable script. */
  script = async (name: string, content: string) => {
    await this.files({ [name]: content });
    await chmod(this.at(name), 0o755);
  };

  /** Makes a fresh copy of the build scripts, without the sources beside them, and writes other sources. */
  copyScripts = async (sources: Record<string, string>) => {
    await rm(this.at('project'), { recursive: true, force: true });
    await this.files({ 'napi/node_api.h': '', 'project/package.json': '{"type": "module"}' });
    for (const folder of ['src/engine/native', nativeOf(this.engine)])
      for (const name of await readdir(folder))
        if (/\.c?js$/.test(name)) await cp(`${folder}/${name}`, this.at(`project/${folder}/${name}`));
    await this.files(
      Object.fromEntries(
        Object.entries(sources).map(([name, text]) => [`project/${nativeOf(this.engine)}/${name}`, text]),
      ),
    );
  };

  /** Runs build.js and returns what it compiled and linked, and its output. */
  build = async (library: string, { args = ['--if-found'], env = {} as NodeJS.ProcessEnv } = {}) => {
    const { at } = this;
    await writeFile(at('compiled'), '');
    const script = at(`project/${nativeOf(this.engine)}/build.js`);
    const { stdout, stderr, status } = spawnSync(process.execPath, [script, ...args], {
      encoding: 'utf8',
      env: {
        ...process.env,
        ...{ CXX: at('compiler'), NAPI_INCLUDE: at('napi') },
        [VARIABLES[this.engine]]: library && at(library),
        ...env,
      },
    });
    return { made: await this.compiled(), said: `${stdout}${stderr}`, status };
  };

  /** What the compiler has compiled and linked. */
  compiled = async () => (await readFile(this.at('compiled'), 'utf8')).split('\n').filter(Boolean).sort();
}
