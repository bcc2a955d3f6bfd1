import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

interface Locked {
  dev?: boolean;
  optional?: boolean;
  peer?: boolean;
  hasInstallScript?: boolean;
}

const read = (name: string) => JSON.parse(readFileSync(name, 'utf8'));
const { packages } = read('package-lock.json') as { packages: Record<string, Locked> };
const installed = Object.entries(packages).filter(([path, { hasInstallScript }]) => path && hasInstallScript);

/** Packages whose installation script does nothing that anything needs. */
const HARMLESS: Record<string, string> = {
  'node_modules/core-js': 'prints a request for donations',
};

// npm does not run these scripts unless it is told to (.npmrc, bin/setup.js), and newer versions of npm ask first.

it('no package that alitok needs has an installation script', () => {
  const needed = installed.filter(([, { dev, optional }]) => !dev && !optional).map(([path]) => path);
  expect(needed).toEqual(Object.keys(HARMLESS));
});

it('the scripts of tfjs-node, which download a TensorFlow, are never run unasked', () => {
  const names = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];
  for (const name of names) expect(packages[`node_modules/${name}`]).toMatchObject({ dev: true });
  const {
    dependencies,
    optionalDependencies = {},
    peerDependencies,
    peerDependenciesMeta,
  } = read('package.json');
  for (const name of names) {
    expect({ ...dependencies, ...optionalDependencies }).not.toHaveProperty([name]);
    expect(peerDependencies[name]).toBe('4.22.0');
    expect(peerDependenciesMeta[name]).toEqual({ optional: true }); // npm does not install it
  }
  expect(readFileSync('.npmrc', 'utf8')).toMatch(/^ignore-scripts=true$/m);
});
