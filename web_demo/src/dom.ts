/** Elements of the page, found by their data-testid: the page is broken where one is missing. */

export function find<E extends HTMLElement>(name: string, kind: abstract new () => E): E {
  const element = document.querySelector(`[data-testid="${name}"]`);
  if (element instanceof kind) return element;
  throw new Error(`the page has no ${kind.name} ${name}`);
}

export const button = (name: string) => find(name, HTMLButtonElement);
export const input = (name: string) => find(name, HTMLInputElement);
export const element = (name: string) => find(name, HTMLElement);
