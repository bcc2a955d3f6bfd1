/** The script of a report: switches between light and dark, and selects the step of the pictures. */
export const SCRIPT = `
const root = document.documentElement;
const button = document.querySelector('#theme');
const dark = () => root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
const label = () => { button.textContent = dark() ? 'Light colours' : 'Dark colours'; };
button.hidden = false;
button.addEventListener('click', () => { root.dataset.theme = dark() ? 'light' : 'dark'; label(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', label);
label();
for (const section of document.querySelectorAll('section[data-steps]')) {
  const steps = JSON.parse(section.dataset.steps);
  const slider = section.querySelector('input');
  const output = section.querySelector('output');
  section.querySelector('.steps').hidden = steps.length < 2;
  const show = () => {
    const step = steps[slider.value];
    output.textContent = 'step ' + step.toLocaleString('en');
    slider.setAttribute('aria-valuetext', output.textContent);
    for (const figure of section.querySelectorAll('figure')) {
      const all = [...figure.querySelectorAll('div[data-step]')];
      const reached = all.filter((one) => Number(one.dataset.step) <= step);
      const chosen = reached.at(-1) ?? all[0];
      for (const one of all) one.classList.toggle('shown', one === chosen);
      figure.querySelector('.at').textContent = 'step ' + Number(chosen.dataset.step).toLocaleString('en');
    }
  };
  slider.addEventListener('input', show);
  show();
}
`;
