// Record a clip from the camera of this device.

import { $, announce } from "./dom.js";

const LONGEST_SECONDS = 20;
const FORMATS = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/mp4"];
let stream = null;
let recorder = null;
let timer = 0;

/** Let the record button call `onRecorded(file)`. */
export function start(onRecorded) {
  // Browsers offer the camera only to pages from this machine or over HTTPS.
  $("record").hidden = !(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
  $("record").addEventListener("click", () => open());
  $("camera-close").addEventListener("click", () => $("camera-dialog").close());
  $("camera-dialog").addEventListener("close", stopCamera);
  $("camera-go").addEventListener("click", () => (recorder ? recorder.stop() : record(onRecorded)));
}

async function open() {
  $("camera-text").textContent = "Waiting for the permission to use the camera.";
  $("camera-go").disabled = true;
  $("camera-go").textContent = "Start recording";
  $("camera-dialog").showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch (error) {
    $("camera-text").textContent = explain(error);
    return;
  }
  if (!$("camera-dialog").open) return stopCamera(); // closed while the browser asked
  $("camera-view").srcObject = stream;
  $("camera-view").play().catch(() => {});
  $("camera-text").textContent = `Up to ${LONGEST_SECONDS} s, without sound. The recording is sent when it ends.`;
  $("camera-go").disabled = false;
  $("camera-go").focus();
}

function explain(error) {
  if (error.name === "NotAllowedError") return "The browser does not allow this page to use the camera. Allow it in the settings of the page.";
  if (error.name === "NotFoundError") return "This device has no camera.";
  if (error.name === "NotReadableError") return "Another program uses the camera.";
  return `The camera cannot be used: ${error.message || error.name}.`;
}

function record(onRecorded) {
  const mimeType = FORMATS.find((type) => MediaRecorder.isTypeSupported(type));
  const chunks = [];
  const own = (recorder = new MediaRecorder(stream, { mimeType }));
  const begin = performance.now();
  own.ondataavailable = (event) => chunks.push(event.data);
  own.onstop = () => {
    if (recorder !== own) return; // cancelled
    const type = own.mimeType.split(";")[0];
    const name = `recording-${new Date().toTimeString().slice(0, 8).replaceAll(":", "-")}.${type.split("/")[1]}`;
    $("camera-dialog").close();
    onRecorded(new File(chunks, name, { type }));
  };
  own.start();
  $("camera-go").textContent = "Stop and analyze";
  announce("Recording.");
  timer = setInterval(() => {
    const seconds = (performance.now() - begin) / 1000;
    $("camera-text").textContent = `Recording, ${seconds.toFixed(0)} of ${LONGEST_SECONDS} s`;
    if (seconds >= LONGEST_SECONDS) own.stop();
  }, 250);
}

function stopCamera() {
  clearInterval(timer);
  const own = recorder;
  recorder = null;
  if (own && own.state !== "inactive") own.stop();
  stream?.getTracks().forEach((track) => track.stop()); // turns the light of the camera off
  stream = null;
  $("camera-view").srcObject = null;
}
