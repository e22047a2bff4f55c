// What the Copy button of a card does when it is clicked. It is the text of the button's onclick attribute, since
// widgets run no <script>. Browsers offer the clipboard to https and to this machine alone; elsewhere the caption is
// selected and copied by command.
const button = this;
const caption = button.closest(".cu-card").querySelector(".cu-caption");
const say = text => {
  for (const other of document.querySelectorAll("button.cu-copy")) other.textContent = "Copy";
  button.textContent = text;
};
const select = () => {
  getSelection().selectAllChildren(caption);
  say(document.execCommand("copy") ? "Copied" : "Selected: copy it by keyboard or menu");
};
if (navigator.clipboard) navigator.clipboard.writeText(caption.textContent).then(() => say("Copied"), select);
else select();
