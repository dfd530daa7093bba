// Copying, for the pages of those who run rounds. Everything else there is plain forms.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const from = document.getElementById(button.dataset.copy);
    const text = from.value ?? from.textContent;
    const told = document.querySelector(".copied");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without https there is no clipboard for scripts: what is to be copied is chosen instead.
      from.hidden = false;
      if (from.select) from.select();
      else getSelection().selectAllChildren(from);
      return;
    }
    told.textContent = told.dataset.copied;
    const words = button.textContent;
    button.textContent = told.dataset.copied;
    setTimeout(() => {
      button.textContent = words;
      told.textContent = "";
    }, 2000);
  });
}
