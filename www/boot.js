// @ts-check
// Says what to do where the page itself cannot begin. No module, so that it runs where those do not.
(function () {
  /** @param {string} message */
  function say(message) {
    var status = document.getElementById("status");
    var error = document.getElementById("error");
    if (!status || !error) {
      addEventListener("DOMContentLoaded", function () {
        say(message);
      });
      return;
    }
    document.body.dataset.state = "error";
    status.textContent = "";
    error.textContent = message;
  }

  if (location.protocol === "file:") {
    say(
      "Opened from a file, this page may not read the files beside it. Serve its folder instead, for example by " +
        "“python3 -m http.server” in it, and open http://localhost:8000.",
    );
    return;
  }
  if (!("noModule" in HTMLScriptElement.prototype)) say("This browser is too old for this page.");
  // A part of the page that does not arrive would leave it as it is for ever.
  addEventListener(
    "error",
    function (event) {
      if (!(event.target instanceof HTMLScriptElement)) return;
      say("A part of this page could not be fetched. Check the connection, and reload the page.");
    },
    true,
  );
})();
