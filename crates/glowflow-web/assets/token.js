// The form for the server's token.

document.getElementById("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  location.href = `./?token=${encodeURIComponent(document.getElementById("token").value.trim())}`;
});

// A link from another site sends no cookie, but this page's own requests do.
if ((await fetch("api/v1/info")).ok) location.replace("./");
else if (location.search.includes("token=")) {
  document.getElementById("message").textContent = "That token is wrong.";
}
