import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { alitok, succeed, temporaryFolder } from './alitok.js';

const at = await temporaryFolder();
const has = (shell: string) => spawnSync(shell, ['--version']).status === 0;

/** The completions for the last word of a command line. */
type Offer = (...words: string[]) => string[];

const offers: Record<string, () => Promise<Offer>> = {
  bash: async () => {
    const script = at('alitok.bash');
    await writeFile(script, (await succeed('completion', 'bash')).stdout);
    return (...words) => {
      const line = ['alitok', ...words].map((word) => `'${word}'`).join(' ');
      const ask = `source ${script}; COMP_WORDS=(${line}); COMP_CWORD=${words.length}; _alitok; printf '%s\\n' "\${COMPREPLY[@]}"`;
      return spawnSync('bash', ['--norc', '-u', '-c', ask], { encoding: 'utf8' }).stdout.trim().split('\n');
    };
  },
  fish: async () => {
    const script = at('alitok.fish');
    await writeFile(script, (await succeed('completion', 'fish')).stdout);
    return (...words) => {
      const ask = `source ${script}; complete -C '${['alitok', ...words].join(' ')}'`;
      const { stdout } = spawnSync('fish', ['--no-config', '-c', ask], { encoding: 'utf8' });
      return stdout
        .trim()
        .split('\n')
        .map((line) => line.split('\t')[0]);
    };
  },
};

// Each shell is tested only if it is installed (apt-get install fish).
for (const [shell, open] of Object.entries(offers))
  describe.skipIf(!has(shell))(`completion in ${shell}`, async () => {
    const offer = has(shell) ? await open() : () => [];

    it('offers commands', () => {
      expect(offer('train-').sort()).toEqual(['train-ar', 'train-features', 'train-tokenizer']);
      expect(offer('eval', '').filter((word) => /^[a-z]/.test(word))).toEqual(
        expect.arrayContaining(['reconstruction', 'generation']),
      );
      expect(offer('eval', '')).not.toContain('eval');
    });

    it("offers a command's options, and the global ones", () => {
      expect(offer('train-ar', '--to')).toEqual(expect.arrayContaining(['--tokens', '--tokenizer']));
      expect(offer('train-ar', '--eng')).toEqual(['--engine']);
      expect(offer('--engine', 'wasm', 'eval', 'generation', '--sam')).toEqual(['--samples']);
      expect(offer('sample', '--class').sort()).toEqual(['--class-names', '--classes']);
      expect(offer('tokenize', '--sam')).not.toContain('--samples');
    });

    it('offers fixed values', () => {
      expect(offer('doctor', '--engine', 'w')).toEqual(['wasm']);
      expect(offer('train-tokenizer', '--stage', '').filter((word) => /^(1|2|all)$/.test(word))).toHaveLength(
        3,
      );
      expect(offer('bench', 'en')).toContain('encode');
      expect(offer('completion', 'b')).toContain('bash');
    });
  });

it.skipIf(!has('zsh'))('zsh accepts its script', async () => {
  const { stdout } = await succeed('completion', 'zsh');
  await writeFile(at('alitok.zsh'), stdout);
  const ask = `source ${at('alitok.zsh')}; print -r -- $_comps[alitok]`;
  const { stdout: taken, stderr } = spawnSync('zsh', ['-f', '-c', ask], { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(taken).toContain('_alitok');
});

it('another shell is refused', async () => {
  const { code, stderr } = await alitok('completion', 'csh');
  expect(code).toBe(2);
  expect(stderr).toMatch(/'csh' is invalid.*bash, zsh, fish/);
});
